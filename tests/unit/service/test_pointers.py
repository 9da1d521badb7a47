"""Places of faults as JSON pointers into the body that was sent."""

from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError

from service.pointers import field_errors


def pointer_to(location: tuple[str | int, ...], body: Any, kind: str = "value_error") -> str:
    error = RequestValidationError([{"loc": location, "type": kind, "msg": "wrong"}], body=body)
    return field_errors(error)[0].pointer


@pytest.mark.parametrize(
    ("location", "body", "pointer"),
    [
        (("body",), None, ""),
        (("body", "a"), {"a": 1}, "/a"),
        (("body", "a", "tag", "b"), {"a": {"b": 1}}, "/a/b"),
        (("body", "a", "tag"), {"a": "tag"}, "/a"),
        (("body", "a", 1, "b"), {"a": [0, {"b": 1}]}, "/a/1/b"),
        (("body", "a", 5), {"a": [0]}, "/a"),
        (("body", "a", "[key]"), {"a": 1}, "/a"),
        (("body", "~/"), {"~/": 1}, "/~0~1"),
        (("query", "limit"), None, "/query/limit"),
        (("query", "tag", 0), {"tag": 1}, "/query/tag/0"),
        (("header", "X"), None, "/header/X"),
    ],
)
def test_only_keys_of_the_body_are_part_of_a_pointer(location: tuple[str | int, ...], body: Any, pointer: str) -> None:
    assert pointer_to(location, body) == pointer


def test_what_is_missing_is_pointed_at_where_it_belongs() -> None:
    assert pointer_to(("body", "a", "tag", "b"), {"a": {}}, "missing") == "/a/b"


def test_a_fault_that_two_members_of_a_union_report_is_told_once() -> None:
    faults = [{"loc": ("body", "a", member), "type": "value_error", "msg": "wrong"} for member in ("X", "Y")]

    assert len(field_errors(RequestValidationError(faults, body={"a": 1}))) == 1
