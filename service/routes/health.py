"""Whether the process lives, and whether it can do its work."""

from http import HTTPStatus

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from gradprobe.errors import DatabaseUnavailable, GradprobeError
from gradprobe.resources import Readiness
from gradprobe.store.migrate import require_head
from service import metrics
from service.dependencies import Service, ServiceDependency
from service.parsing import Route
from service.problems import RETRY_SECONDS, documented
from service.rendering import json_response

router = APIRouter(route_class=Route, tags=["service"])


@router.get("/livez", responses=documented())
async def live() -> dict[str, str]:
    """Whether the process answers. It asks nothing of database or broker, whose failure no restart would mend."""
    return {"status": "alive"}


@router.get(
    "/readyz",
    response_model=Readiness,
    responses={**documented(), 503: {"model": Readiness, "description": "The database is away or not migrated"}},
)
def ready(service: ServiceDependency) -> Response:
    """Whether experiments can be stored. Without the broker they are accepted all the same, and start later."""
    checks = _database_checks(service) | {"broker": "ok" if service.doorbell.reachable() else "unreachable"}
    if checks["migrations"] != "ok":
        headers = {"Retry-After": str(RETRY_SECONDS)}
        return json_response({"status": "unavailable", "checks": checks}, HTTPStatus.SERVICE_UNAVAILABLE, headers)
    return json_response({"status": "ready" if checks["broker"] == "ok" else "degraded", "checks": checks})


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={**documented(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def read_figures(service: ServiceDependency) -> Response:
    """Figures for Prometheus: experiments by status, the queue's age, lost workers, requests and their times."""
    return Response(metrics.exposition(service.database), media_type=metrics.MEDIA_TYPE)


def _database_checks(service: Service) -> dict[str, str]:
    try:
        require_head(service.database)
    except DatabaseUnavailable as error:
        return {"database": error.message, "migrations": "unknown"}
    except GradprobeError as error:
        return {"database": "ok", "migrations": error.message}
    return {"database": "ok", "migrations": "ok"}
