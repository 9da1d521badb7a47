"""What Schemathesis can't know of this service: which requests wait, and which rules no schema can tell."""

import re
from typing import Any, Final, get_args
from urllib.parse import urlencode

import schemathesis
from pydantic_core.core_schema import ErrorType
from schemathesis import GenerationMode

#: Kinds of faults that a JSON schema can tell, so that a body which fits the schema has none of them.
_TOLD_BY_SCHEMA: Final = frozenset(get_args(ErrorType)) | {"unknown_field", "required", "object_type"}
_LONGEST_QUERY: Final = 48_000
#: Beyond 2**53 the validators of JSON schemas compare integers as floats.
_BEYOND_FLOATS: Final = {(f"{base}/training/seed", "less_than") for base in ("", "/base")}
#: A value of a sweep's axis is a field of the spec; which one, the axis's name says: no schema of axes knows its rules.
_VALUE_OF_AN_AXIS: Final = re.compile(r"/axes/[^/]*/\d+(/.*)?")


@schemathesis.hook
def before_call(context: Any, case: schemathesis.Case, kwargs: Any) -> None:
    """A request that waits for half a minute tells nothing that one of a hundredth of a second does not."""
    try:
        wait = float((case.query or {}).get("wait", 0))
    except (TypeError, ValueError):
        return
    if 0.01 < wait <= 30:
        case.query["wait"] = 0.01


@schemathesis.hook
def filter_query(context: Any, query: dict[str, Any] | None) -> bool:
    """Beyond 64 KiB of a request's head the HTTP server itself answers, 400 in plain text, and no route is asked."""
    return len(urlencode(query or {}, doseq=True, errors="replace")) < _LONGEST_QUERY


@schemathesis.check
def only_rules_that_no_schema_can_tell_refuse_what_fits_it(
    context: Any, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """In place of `positive_data_acceptance`, which takes 422 for a contradiction wherever it stands.

    A cursor that no list gave, a layer that a network does not have, two fields that do not go together: these fit the
    schema and are refused, each with a code of its own.
    """
    positive = case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE
    if not positive or response.status_code != 422:
        return
    problem = response.json()
    if problem["code"] == "VALIDATION_FAILED":
        faults = [(fault["pointer"], fault["code"]) for fault in problem["errors"]]
        told = [
            fault
            for fault in faults
            if fault[1] in _TOLD_BY_SCHEMA and fault not in _BEYOND_FLOATS and not _VALUE_OF_AN_AXIS.fullmatch(fault[0])
        ]
        assert not told, f"The schema does not tell of {told[:5]}"
