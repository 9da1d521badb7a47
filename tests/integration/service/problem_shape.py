"""What every error's body must be, checked without the code that writes it."""

import re
from typing import Any

import httpx

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"}


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body, after it was found to be RFC 9457 problem details in this project's form."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert set(body) == MEMBERS
    assert body["status"] == status
    assert body["code"] == code
    assert re.fullmatch(r"[A-Z][A-Z0-9_]*", code)
    assert body["type"] == "urn:gradprobe:problem:" + code.lower().replace("_", "-")
    assert body["title"]
    assert body["detail"]
    assert body["instance"].startswith("/")
    assert body["request_id"] == response.headers["x-request-id"]
    for error in body["errors"]:
        assert set(error) == {"pointer", "message", "code"}
        assert error["pointer"] == "" or error["pointer"].startswith("/")
        assert re.fullmatch(r"[a-z0-9_]+", error["code"])
        assert error["message"]
    return body
