"""Under which condition a request is to be carried out: once only, or on the state that its client knows."""

import hashlib
from collections.abc import Iterable
from typing import Annotated, Any, Final

import orjson
from fastapi import Depends, Header, Request

from gradprobe.store.idempotency import Repetition
from service.dependencies import PrincipalDependency, ServiceDependency
from service.rendering import versions_in

_KEY: Final = r"^[\x20-\x7e]{1,255}$"
_HOUR: Final = 3600.0
#: For OpenAPI: the header of an answer that was given before.
REPLAYED: Final[dict[str, Any]] = {
    "Idempotency-Replayed": {
        "description": "`true` where an earlier request with this key made it; the answer tells its state now.",
        "schema": {"type": "string"},
    }
}


async def _repetition(
    request: Request,
    service: ServiceDependency,
    principal: PrincipalDependency,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=_KEY,
            description="Any text that the client uses for this one thing: sent again with the same body, it makes "
            "nothing new and answers with what there is; with another body it is refused. Remembered for a day at "
            "least.",
        ),
    ] = None,
) -> Repetition | None:
    if idempotency_key is None:
        return None
    # Not the bytes: a client that repeats itself may write its keys in another order, or with other spaces.
    body = orjson.dumps(await request.json(), option=orjson.OPT_SORT_KEYS)
    digest = hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + body).hexdigest()
    return Repetition(principal.owner, idempotency_key, digest, service.settings.idempotency_hours * _HOUR)


async def _known_versions(
    if_match: Annotated[
        str | None,
        Header(
            description="An `ETag` of the experiment: refused with 412 where it has changed since.", max_length=4096
        ),
    ] = None,
) -> frozenset[int] | None:
    return None if if_match is None or if_match.strip() == "*" else versions_in(_listed(if_match))


def _listed(header: str) -> Iterable[str]:
    return (tag.strip() for tag in header.split(","))


RepetitionDependency = Annotated[Repetition | None, Depends(_repetition)]
#: The versions that the client knows, of which the experiment must have one; None where any will do.
KnownVersions = Annotated[frozenset[int] | None, Depends(_known_versions)]
