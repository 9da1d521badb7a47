"""What every handler needs, opened once when the process starts."""

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio
from anyio.to_thread import current_default_thread_limiter
from fastapi import Depends, FastAPI, Path, Request
from fastapi.concurrency import run_in_threadpool

from gradprobe import objects
from gradprobe.access import Principal
from gradprobe.errors import GradprobeError, NoKey
from gradprobe.identifiers import is_experiment_id
from gradprobe.logs import bind
from gradprobe.queue import Doorbell
from gradprobe.settings import Settings
from gradprobe.store import experiments, keys, sweeps
from gradprobe.store.cache import Cache
from gradprobe.store.database import Database
from gradprobe.store.migrate import require_head
from service.shutdown import noticing
from service.streams import Streams

_logger = logging.getLogger(__name__)


class Service:
    """One process's settings, database, object store and doorbell."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings.database, pool_size=settings.database_pool)
        self.doorbell = Doorbell(settings)
        self.cache = Cache(settings.cache_mebibytes * 1024 * 1024)
        #: Set once the process was asked to stop: what waits should answer.
        self.stopping = threading.Event()
        self.objects = objects.opened(settings)
        self.streams = Streams(settings, self.database, self.stopping, self.objects)


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _request_id(request: Request) -> str:
    return str(request.state.request_id)


async def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


# They are `async def` so that FastAPI calls them in place and spends no thread on them.
ServiceDependency = Annotated[Service, Depends(_service)]
RequestId = Annotated[str, Depends(_request_id)]
PrincipalDependency = Annotated[Principal, Depends(_principal)]


async def _visible(
    experiment_id: Annotated[str, Path(description="The experiment's id, `exp_…`.")],
    service: ServiceDependency,
    principal: PrincipalDependency,
) -> str:
    if is_experiment_id(experiment_id):
        bind(experiment_id=experiment_id)
    if not principal.sees_all:
        await run_in_threadpool(_require_visible, service, experiment_id, principal)
    return experiment_id


def _require_visible(service: Service, experiment_id: str, principal: Principal) -> None:
    with service.database.read() as connection:
        experiments.require_visible(connection, experiment_id, principal)


#: The id of an experiment that the one who asks may see: a route that takes it can't reach another's.
ExperimentId = Annotated[str, Depends(_visible)]


def _visible_group(kind: sweeps.Kind, service: Service, identifier: str, principal: Principal) -> None:
    with service.database.read() as connection:
        sweeps.require_visible(connection, identifier, kind, principal)


async def _visible_sweep(
    sweep_id: Annotated[str, Path(description="The sweep's id, `swp_…`.")],
    service: ServiceDependency,
    principal: PrincipalDependency,
) -> str:
    if not principal.sees_all:
        await run_in_threadpool(_visible_group, "sweep", service, sweep_id, principal)
    return sweep_id


async def _visible_remedies(
    remedies_id: Annotated[str, Path(description="The id of remedies that are tried, `rem_…`.")],
    service: ServiceDependency,
    principal: PrincipalDependency,
) -> str:
    if not principal.sees_all:
        await run_in_threadpool(_visible_group, "remedies", service, remedies_id, principal)
    return remedies_id


#: As `ExperimentId`, of a sweep and of remedies that are tried.
SweepId = Annotated[str, Depends(_visible_sweep)]
RemediesId = Annotated[str, Depends(_visible_remedies)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Bounds the threads, says at once what is wrong with the database, and closes it at the end."""
    service: Service = app.state.service
    # A thread more than there are connections could only wait for one, and time out.
    current_default_thread_limiter().total_tokens = service.settings.database_pool
    try:
        require_head(service.database)
        if service.settings.authentication == "required":
            require_key(service.database)
    except NoKey:
        raise
    except GradprobeError as error:
        # Not fatal: the process would be restarted for ever, and /readyz tells what is missing.
        _logger.error("%s", error.message)
    with noticing(service.stopping):
        async with anyio.create_task_group() as background:
            background.start_soon(service.streams.run)
            yield
            background.cancel_scope.cancel()
    service.database.close()


def require_key(database: Database) -> None:
    """Raises NoKey where no key opens anything, so that nobody could ever be answered."""
    with database.read() as connection:
        if not keys.any_valid(connection):
            raise NoKey
