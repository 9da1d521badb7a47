"""An experiment's measurements as a file for another tool."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from gradprobe.export.contents import gather
from gradprobe.export.forms import KINDS, Form, file_name, require
from gradprobe.export.tables import TableName
from gradprobe.store import experiments
from gradprobe.store.reader import Reader
from service.dependencies import ExperimentId, ServiceDependency
from service.parsing import Route
from service.problems import documented
from service.rendering import LIVE, UNCHANGED, cache_headers, not_modified
from service.selection import RangeDependency, refused

router = APIRouter(
    prefix="/experiments/{experiment_id}",
    route_class=Route,
    tags=["exports"],
    responses={**documented(HTTPStatus.NOT_FOUND, HTTPStatus.NOT_IMPLEMENTED), 304: UNCHANGED},
)

_BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
_NAMED: Final[dict[str, Any]] = {
    "Content-Disposition": {"description": "The file's name.", "schema": {"type": "string"}}
}
#: Shown in a browser: nothing but its own style and its own pictures.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
_SHOWN: Final = frozenset({"html", "png"})

FormParameter = Annotated[Form, Query(alias="format", description="Which file.")]
TableParameter = Annotated[
    TableName | None,
    Query(
        description="Of csv, parquet and arrow: `layers`, a row for each layer and step (the default); `metrics`, "
        "a row for each step; `histograms`, a row for each bin that is not empty."
    ),
]


@router.get(
    "/export",
    response_class=Response,
    responses={
        200: {
            "headers": LIVE | _NAMED,
            "content": {kind.media_type.partition(";")[0]: _BINARY for kind in KINDS.values()},
            "description": "The file.",
        }
    },
)
def export_experiment(
    request: Request,
    experiment_id: ExperimentId,
    service: ServiceDependency,
    wanted: RangeDependency,
    form: FormParameter,
    table: TableParameter = None,
) -> Response:
    """What was measured so far as a file: tables, TensorBoard's event file, a picture, a page with the verdict.

    Parquet and Arrow files carry the spec and the verdict in the metadata `gradprobe` of their schema.
    """
    kind = KINDS[form]
    if table is not None and not kind.tabular:
        raise refused("query", "table", "no_table", f"A file of format {form} is no table; leave table out.")
    if wanted.max_points is not None:
        raise refused("query", "max_points", "not_reduced", "An export holds every recorded step; use start and stop.")
    require(form)
    name: TableName = table or "layers"
    with service.database.read() as connection:
        record = experiments.get(connection, experiment_id)
        headers = cache_headers(request, record)
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        cache = service.cache if record.status.ended else None
        reader = Reader(connection, record.id, cache, record.row_version, service.objects)
        contents = gather(reader, record, kind.wish(wanted.start, wanted.stop, name))
    disposition = "inline" if form in _SHOWN else "attachment"
    headers |= {"Content-Disposition": f'{disposition}; filename="{file_name(contents, form, name)}"'}
    if form == "html":
        headers["Content-Security-Policy"] = _POLICY
    return _answer(kind.make(contents, name), headers, kind.media_type)


def _answer(parts: Iterable[bytes], headers: dict[str, str], media_type: str) -> Response:
    if isinstance(parts, list):
        return Response(b"".join(parts), HTTPStatus.OK, headers, media_type)
    return StreamingResponse(parts, HTTPStatus.OK, headers, media_type)
