"""One form for every line that a server process logs, whoever writes it: ours, uvicorn's, Celery's, SQLAlchemy's.

Modules log with the standard library's `logging`; this renders it. A line is a JSON object, or is laid out for people
on a terminal. What `bound` names stands in every line that is written within it. Control characters are escaped, so
that nothing that came in a request can write a line of its own, and keys and passwords are cut out.

Only processes that run the server call it; it needs the extra `server`.
"""

import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

Format = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]

#: What a line may carry besides its sentence. Libraries attach objects of their own to records, and those stay out.
FIELDS: Final = (
    "request_id",
    "experiment_id",
    "attempt",
    "worker",
    "method",
    "route",
    "status",
    "milliseconds",
    "owner",
)

_SECRETS: Final = re.compile(r"gp_[A-Za-z0-9_-]{43}|(?<=://)([^\s/:@]*):[^\s/@]+(?=@)")
#: C0 and C1, and what changes the direction of a line or breaks it: a terminal or a viewer obeys them.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def configure(form: Format = "auto", level: Level = "info", stream: TextIO | None = None) -> None:
    """Log to `stream`, standard error by default, from now on; doing it twice is harmless.

    `auto` is laid out for people where the stream is a terminal, and JSON anywhere else.
    """
    chosen = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(chosen)
    handler.setFormatter(_formatter(form, chosen.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "celery", "celery.task"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.setLevel(logging.NOTSET)
        library.propagate = True
    # Celery's pool tells of every child's start, Alembic of every look at the schema: too much.
    for name in ("multiprocessing", "alembic"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.setLevel(logging.WARNING)
        library.propagate = True
    # The service writes one line a request itself, which knows the request's id.
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
    logging.captureWarnings(True)


@contextmanager
def bound(**fields: str | int | None) -> Iterator[None]:
    """These fields stand in every line that this thread or task writes within the block."""
    with structlog.contextvars.bound_contextvars(**fields):
        yield


def bind(**fields: str | int | None) -> None:
    """As `bound`, up to the end of the block of `bound` that names them, or of this task."""
    structlog.contextvars.bind_contextvars(**fields)


def thread(target: Callable[[], None], name: str) -> threading.Thread:
    """A daemon thread that writes the fields bound here; a plain one knows nothing of them."""
    return threading.Thread(target=copy_context().run, args=(target,), name=name, daemon=True)


def _formatter(form: Format, terminal: bool) -> logging.Formatter:
    people = form == "console" or (form == "auto" and terminal)
    before: list[Processor] = [
        structlog.stdlib.ExtraAdder(allow=FIELDS),
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    after: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _without_secrets,
    ]
    if people:
        after += [_printable, structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=_plain)]
    else:
        # Nothing but ASCII, so that no control character and no broken half of a pair is raw.
        after += [_ordered, structlog.processors.JSONRenderer(ensure_ascii=True)]
    return structlog.stdlib.ProcessorFormatter(processors=after, foreign_pre_chain=before)


_plain: Final = structlog.dev.plain_traceback


def _without_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {name: _SECRETS.sub(_hidden, value) if isinstance(value, str) else value for name, value in event.items()}


def _hidden(found: re.Match[str]) -> str:
    return "gp_***" if found[1] is None else f"{found[1]}:***"


def _ordered(_logger: Any, _method: str, event: EventDict) -> EventDict:
    event["message"] = event.pop("event")
    return {name: event.pop(name) for name in ("timestamp", "level", "logger", "message")} | dict(event)


def _printable(_logger: Any, _method: str, event: EventDict) -> EventDict:
    shown = {name: _escaped(value) if isinstance(value, str) else value for name, value in event.items()}
    if isinstance(event.get("exception"), str):
        # Indented, so that none of its lines passes for one of the log.
        shown["exception"] = "\n".join(f"  | {_escaped(line)}" for line in event["exception"].split("\n"))
    return shown


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
