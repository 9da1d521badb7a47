"""Texts that can be stored in any database, and printed on any terminal."""

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError


def _printable(text: str) -> str:
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text):
        raise PydanticCustomError("control_character", "control characters are not allowed")
    return text


def _storable(text: str) -> str:
    if re.search(r"[\x00\ud800-\udfff]", text):
        raise PydanticCustomError("control_character", "NUL and lone surrogates are not allowed")
    return text


#: For lines (names, values, what stands in a table), and for texts of several lines. Put them behind a Field with the
#: length; `TELL_…` are what they check, for its JSON schema: they themselves say better what is wrong.
Printable: Final = AfterValidator(_printable)
Storable: Final = AfterValidator(_storable)
TELL_PRINTABLE: Final[dict[str, Any]] = {"pattern": r"^[^\x00-\x1f\x7f]*$"}
TELL_STORABLE: Final[dict[str, Any]] = {"pattern": r"^[^\x00]*$"}

Label = Annotated[str, Field(min_length=1, max_length=200, json_schema_extra=TELL_PRINTABLE), Printable]
TagKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-/]{1,64}$")]
TagValue = Annotated[str, Field(max_length=200, json_schema_extra=TELL_PRINTABLE), Printable]
Tags = Annotated[dict[TagKey, TagValue], Field(max_length=32, json_schema_extra={"additionalProperties": False})]
Notes = Annotated[str, Field(max_length=10_000, json_schema_extra=TELL_STORABLE), Storable]
