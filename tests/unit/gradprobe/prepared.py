"""A real HTTP server that gives the answers a test prepares, made through the models of the contract."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel

from gradprobe import Spec
from gradprobe.resources import (
    Evaluation,
    Experiment,
    FieldError,
    LayerSeries,
    MetricsDocument,
    Nonfinite,
    Problem,
    Reduction,
    SeriesDocument,
)
from gradprobe.state import Status

Answer = tuple[int, BaseModel | bytes | None]


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class PreparedServer:
    """Answers (method, path) with what was prepared for it, one after the other, the last one again and again."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answers: dict[tuple[str, str], list[Answer]] = field(default_factory=dict)
    on_request: Callable[[Request], None] | None = None

    def prepare(self, method: str, path: str, *answers: Answer) -> None:
        self.answers[method, path] = list(answers)

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        if self.on_request:
            self.on_request(request)
        left = self.answers.get((request.method, request.path))
        if not left:
            return 404, problem(404, "EXPERIMENT_NOT_FOUND", f"There is nothing at {request.path}")
        return left.pop(0) if len(left) > 1 else left[0]

    # The makers are methods so that tests reach them through the fixture.
    @staticmethod
    def problem(status: int, code: str, detail: str, *faults: FieldError) -> Problem:
        return problem(status, code, detail, *faults)

    @staticmethod
    def experiment(number: int = 1, status: Status = Status.SUCCEEDED, **changes: Any) -> Experiment:
        return experiment(number, status, **changes)

    @staticmethod
    def series(columns: Mapping[str, Sequence[float | None]], **changes: Any) -> SeriesDocument:
        return series(columns, **changes)

    @staticmethod
    def metrics(losses: Sequence[float | None], *nonfinite: Nonfinite) -> MetricsDocument:
        return metrics(losses, *nonfinite)


def problem(status: int, code: str, detail: str, *faults: FieldError) -> Problem:
    return Problem(
        type="about:blank",
        title="Refused",
        status=status,
        detail=detail,
        instance="/",
        code=code,
        request_id="r1",
        errors=list(faults),
    )


def experiment_id(number: int) -> str:
    return f"exp_01m{number:023d}"


def experiment(number: int, status: Status, **changes: Any) -> Experiment:
    own = experiment_id(number)
    started = status is not Status.QUEUED
    document: dict[str, Any] = {
        "id": own,
        "name": f"run {number}",
        "tags": {"course": "dl-101"},
        "notes": None,
        "spec": Spec().model_dump(mode="json"),
        "status": status,
        "progress": {"iteration": 2500 if status is Status.SUCCEEDED else 0, "iterations": 2500},
        "attempt": int(started),
        "created_at": "2026-10-20T10:00:00Z",
        "started_at": "2026-10-20T10:00:01Z" if started else None,
        "finished_at": "2026-10-20T10:00:09Z" if status.ended else None,
        "verdict": None,
        "result": {
            "final_loss": 0.4213,
            "train_accuracy": 0.881,
            "test_accuracy": 0.879,
            "test_loss": 0.43,
            "seconds": 5.0,
            "iterations_per_second": 500.0,
        }
        if status is Status.SUCCEEDED
        else None,
        "error": {"code": "WORKER_LOST", "message": "Three workers were lost"} if status is Status.FAILED else None,
        "provenance": None,
        "links": dict.fromkeys(
            ("self", "gradients", "histograms", "weights", "activations", "metrics", "diagnosis"), f"/experiments/{own}"
        ),
        **changes,
    }
    return Experiment.model_validate(document)


def series(
    columns: Mapping[str, Sequence[float | None]],
    steps: Sequence[int] | None = None,
    nonfinite: Sequence[Nonfinite] = (),
    statistic: str = "mean_abs",
) -> SeriesDocument:
    found = list(steps) if steps is not None else list(range(len(next(iter(columns.values())))))
    return SeriesDocument(
        experiment_id=experiment_id(1),
        status=Status.SUCCEEDED,
        of="weights",
        steps=found,
        layers=[
            LayerSeries(name=name, shape=[10, 784], size=7840, statistics={statistic: list(values)})
            for name, values in columns.items()
        ],
        nonfinite=list(nonfinite),
        reduction=Reduction(method="none", points=len(found), of_points=len(found), bucket=1),
    )


def metrics(losses: Sequence[float | None], *nonfinite: Nonfinite) -> MetricsDocument:
    return MetricsDocument(
        experiment_id=experiment_id(1),
        status=Status.SUCCEEDED,
        steps=list(range(len(losses))),
        metrics={"loss": list(losses)},
        evaluation=Evaluation(steps=[0, 500], test_loss=[2.3, None], test_accuracy=[0.1, 0.9]),
        nonfinite=list(nonfinite),
        reduction=Reduction(method="none", points=len(losses), of_points=len(losses), bucket=1),
    )


def handler(server: PreparedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length", "0"))
            text = self.rfile.read(length)
            request = Request(
                self.command,
                unquote(parts.path),
                dict(parse_qsl(parts.query)),
                {name.lower(): value for name, value in self.headers.items()},
                json.loads(text) if text else None,
            )
            status, document = server.answer(request)
            body = document.model_dump_json().encode() if isinstance(document, BaseModel) else document or b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    for method in ("GET", "POST", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.handle_any)
    return Handler
