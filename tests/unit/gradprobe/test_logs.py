"""The one form of every line: whole, escaped, without secrets, with what is bound."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from gradprobe import logs
from gradprobe.access import new_key

NAMES = ("", "uvicorn", "uvicorn.error", "uvicorn.access", "celery", "celery.task", "alembic", "multiprocessing")
HOSTILE = "a\nb\x1b[31m\x9b\u2028\u202e\udc80c"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(list(one.handlers), one.level, one.propagate) for one in loggers]
    with warnings.catch_warnings():
        yield
        logging.captureWarnings(False)
    for one, (handlers, level, propagate) in zip(loggers, before, strict=True):
        one.handlers[:], one.propagate = handlers, propagate
        one.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_whoever_writes_it_with_what_is_bound() -> None:
    logs.configure(stream=(stream := io.StringIO()))
    with logs.bound(request_id="r1", experiment_id="e0"):
        logs.bind(experiment_id="e1")
        logging.getLogger("uvicorn.error").info("%d of %d", 1, 2, extra={"status": 3, "color_message": "raw"})
        logging.getLogger("celery").warning("late", extra={"experiment_id": "e2"})
        thread = logs.thread(lambda: logging.getLogger("ours").info("beats"), "test")
        thread.start()
        thread.join()
    logging.getLogger("uvicorn.access").info("told by the service itself")
    logging.getLogger("ours").debug("less than the level")
    warnings.simplefilter("always")
    warnings.warn("deprecated", DeprecationWarning, stacklevel=1)

    first, second, third, last = lines(stream)
    assert first.pop("timestamp").endswith("Z")
    assert list(first)[:3] == ["level", "logger", "message"]
    assert set(list(first)[3:]) == {"status", "request_id", "experiment_id"}
    assert first["message"] == "1 of 2"
    assert (first["level"], first["logger"], first["status"]) == ("info", "uvicorn.error", 3)
    assert (first["request_id"], first["experiment_id"]) == ("r1", "e1")
    assert (second["request_id"], second["experiment_id"], second["level"]) == ("r1", "e2", "warning")
    assert (third["message"], third["request_id"]) == ("beats", "r1")
    assert "deprecated" in last["message"]
    assert last["logger"] == "py.warnings"


@pytest.mark.parametrize("form", ["json", "console"])
def test_nothing_is_raw_that_could_write_a_line_of_its_own(form: logs.Format) -> None:
    logs.configure(form, stream=(stream := io.StringIO()))
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("ours").exception("%s", HOSTILE, extra={"owner": HOSTILE})
    told = stream.getvalue()
    assert not set(told) & set("\x1b\x9b\u2028\u202e\r")
    first, *more = told.rstrip("\n").split("\n")
    assert "ours" in first
    assert all(line.startswith("  | ") for line in more)
    assert bool(more) == (form == "console")
    if form == "json":
        assert (json.loads(told)["message"], json.loads(told)["owner"]) == (HOSTILE, HOSTILE)


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_key_and_no_password_is_told(form: logs.Format) -> None:
    logs.configure(form, stream=(stream := io.StringIO()))
    key = new_key()
    try:
        raise ValueError(f"{key} opens redis://:sesame@broker/0")
    except ValueError:
        logging.getLogger("ours").exception("postgresql+psycopg://user:sesame@host/database %s", key)
    told = stream.getvalue()
    assert key not in told
    assert "sesame" not in told
    assert "user:***@host/database gp_***" in told


def test_auto_is_for_people_on_a_terminal_alone() -> None:
    logs.configure(stream=(stream := Terminal()))
    logging.getLogger("ours").info("hello")
    assert "hello" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
    logs.configure("json", "warning", stream=(stream := Terminal()))
    logging.getLogger("ours").info("less")
    logging.getLogger("ours").warning("more")
    assert [line["message"] for line in lines(stream)] == ["more"]
