import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradprobe import __version__
from gradprobe.cli import run
from gradprobe.resources import (
    Experiment,
    ExperimentPage,
    FieldError,
    HistogramDocument,
    LayerHistogram,
    Reduction,
    SeriesDocument,
)
from gradprobe.state import Status
from tests.unit.gradprobe.prepared import PreparedServer

CommandLine = Callable[..., tuple[int, str, str]]

VANISHING = {f"layer{number}": [10.0 ** (number - 7)] * 40 for number in range(1, 7)}


@pytest.fixture
def cli(server: PreparedServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Runs one command line against the server; gives exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "120")  # pytest-xdist sets another width

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["--url", server.url, *arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


def prepare(server: PreparedServer, *experiments: Experiment) -> None:
    for experiment in experiments:
        own = f"/experiments/{experiment.id}"
        server.prepare("GET", own, (200, experiment))
        server.prepare("GET", f"{own}/gradients", (200, server.series(VANISHING)))
        server.prepare("GET", f"{own}/metrics", (200, server.metrics([2.0, 1.0])))
    server.prepare("GET", "/experiments", (200, ExperimentPage(items=list(experiments), next_cursor=None)))


def test_submit_sends_the_spec_and_says_what_to_run_next(server: PreparedServer, cli: CommandLine) -> None:
    made = server.experiment(1, Status.QUEUED)
    server.prepare("POST", "/experiments", (202, made))
    code, out, err = cli("submit", "--activation", "relu", "--depth", "3", "--tag", "a=b", "--set", "queue.priority=2")
    assert (code, err) == (0, "")
    assert server.requests[0].body == {
        "network": {"activation": "relu", "depth": 3},
        "tags": {"a": "b"},
        "queue": {"priority": 2},
    }
    for said in (made.id, "queued", f"{server.url}/experiments/{made.id}", f"gradprobe watch {made.id}"):
        assert said in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("watch",), "Missing argument 'experiments'; see gradprobe watch --help"),
        (("keys", "crate"), "Did you mean 'create'?; see gradprobe keys --help"),
        (("export", "last", "--format", "xlsx"), "'--format' / '-f': 'xlsx' is not one of 'csv', "),
        (("--nothing",), "see gradprobe --help"),
    ],
)
def test_a_wrong_command_line_points_at_its_own_help(cli: CommandLine, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_submit_json_prints_the_document_alone(server: PreparedServer, cli: CommandLine) -> None:
    made = server.experiment(1, Status.QUEUED)
    server.prepare("POST", "/experiments", (202, made))
    code, out, _ = cli("submit", "--json")
    assert code == 0
    assert Experiment.model_validate_json(out) == made


@pytest.mark.parametrize(("status", "code"), [(Status.SUCCEEDED, 0), (Status.FAILED, 1), (Status.CANCELLED, 1)])
def test_submit_watch_ends_as_the_experiment_ended(
    server: PreparedServer, cli: CommandLine, status: Any, code: int
) -> None:
    ended = server.experiment(1, status)
    prepare(server, ended)
    server.prepare("POST", "/experiments", (202, server.experiment(1, Status.QUEUED)))
    found, out, _ = cli("submit", "--watch")
    assert found == code
    assert f"{ended.id}  {status}" in out


def test_a_refused_spec_is_one_line_with_every_fault(server: PreparedServer, cli: CommandLine) -> None:
    fault = FieldError(pointer="/network/depth", message="must be at most 1000", code="less_than_equal")
    server.prepare("POST", "/experiments", (422, server.problem(422, "INVALID_SPEC", "The spec is refused", fault)))
    code, out, err = cli("submit", "--depth", "5000")
    assert (code, out) == (1, "")
    assert err == "gradprobe: The spec is refused: /network/depth: must be at most 1000 [INVALID_SPEC]\n"


def test_list_has_a_row_for_each_and_hides_no_markup(server: PreparedServer, cli: CommandLine) -> None:
    prepare(server, server.experiment(2, Status.QUEUED, name="[red]x[/red]"), server.experiment(1))
    code, out, _ = cli("list", "--tag", "course=dl-101", "--status", "succeeded", "--limit", "7")
    rows = out.splitlines()
    assert code == 0
    assert "[red]x[/red]" in rows[1]
    assert re.search(r"succeeded +100 % +sigmoid × 6 × 10 +0\.421 +87\.9 %", rows[2])
    assert server.requests[0].query == {"status": "succeeded", "tag": "course:dl-101", "limit": "7"}


def test_a_list_fits_a_narrow_terminal(
    server: PreparedServer, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(server, server.experiment(1, name="a name of more words than a narrow terminal has room for"))
    monkeypatch.setenv("COLUMNS", "80")
    rows = cli("list")[1].splitlines()
    assert max(map(len, rows)) <= 80
    assert rows[1].startswith("00000001 ")
    assert "87.9 %" in rows[1]


def test_an_empty_list_says_how_to_begin(server: PreparedServer, cli: CommandLine) -> None:
    prepare(server)
    assert "gradprobe submit" in cli("list")[1]
    assert json.loads(cli("list", "--json")[1]) == []


def test_show_tells_the_experiment_and_its_layers(server: PreparedServer, cli: CommandLine) -> None:
    made = server.experiment(1)
    prepare(server, made)
    code, out, _ = cli("show", made.id)
    assert code == 0
    assert "loss 0.421" in out
    assert out.count("layer1  1.00e-06     1/100,000") == 2  # of the weights and of the outputs
    assert {request.query.get("of") for request in server.requests} == {None, "weights", "outputs"}


def test_show_asks_only_for_what_is_recorded(server: PreparedServer, cli: CommandLine) -> None:
    spec = server.experiment(1).spec
    spec = {**spec, "recording": {**spec["recording"], "tensors": ["output_gradients"]}}
    made = server.experiment(1, spec=spec)
    prepare(server, made)
    assert cli("show", made.id)[0] == 0
    assert [request.query["of"] for request in server.requests[1:]] == ["outputs"]


def test_show_tells_why_it_failed_and_that_nothing_was_recorded(server: PreparedServer, cli: CommandLine) -> None:
    made = server.experiment(1, Status.FAILED)
    prepare(server, made)
    server.prepare("GET", f"/experiments/{made.id}/gradients", (200, server.series({"layer1": []})))
    code, out, _ = cli("show", made.id)
    assert code == 0
    assert "Three workers were lost [WORKER_LOST]" in out
    assert "nothing recorded yet" in out


@pytest.mark.parametrize("given", ["last", "exp_01m00000000000000000000002", "2", "000002"])
def test_an_id_may_be_abbreviated(server: PreparedServer, cli: CommandLine, given: str) -> None:
    prepare(server, server.experiment(2), server.experiment(1))
    code, out, _ = cli("show", "--json", given)
    assert code == 0
    assert Experiment.model_validate_json(out) == server.experiment(2)


@pytest.mark.parametrize(("given", "code", "words"), [("01m", 2, "fits 2 experiments"), ("zz", 1, "begins or ends")])
def test_an_abbreviation_must_fit_one(
    server: PreparedServer, cli: CommandLine, given: str, code: int, words: str
) -> None:
    prepare(server, server.experiment(2), server.experiment(1))
    found, _, err = cli("show", given)
    assert found == code
    assert words in err


def test_last_of_nothing_says_how_to_begin(server: PreparedServer, cli: CommandLine) -> None:
    prepare(server)
    code, _, err = cli("show", "last")
    assert code == 1
    assert "gradprobe submit" in err


def test_watch_in_a_pipe_prints_a_line_at_each_change(server: PreparedServer, cli: CommandLine) -> None:
    made = server.experiment(1)
    prepare(server, made)
    looks = [server.experiment(1, status) for status in (Status.QUEUED, Status.QUEUED, Status.RUNNING)]
    server.prepare("GET", f"/experiments/{made.id}", *[(200, look) for look in looks], (200, made))
    code, out, _ = cli("watch", made.id)
    assert code == 0
    assert [line.split()[2] for line in out.splitlines() if re.match(r"\d\d:", line)] == [
        "queued",
        "running",
        "succeeded",
    ]
    assert ("queued  waiting for a worker for " in out, "loss 1.500" in out, "\x1b" in out) == (True, True, False)


def test_watch_fetches_each_step_once(server: PreparedServer, cli: CommandLine) -> None:
    made = server.experiment(1)
    prepare(server, made)
    running = server.experiment(1, Status.RUNNING)
    server.prepare("GET", f"/experiments/{made.id}", (200, running), (200, running), (200, made))
    cli("watch", made.id)
    starts = [request.query["start"] for request in server.requests if request.query.get("of") == "outputs"]
    assert starts == ["0", "40"]


def test_interrupting_watch_leaves_the_experiment_running(server: PreparedServer) -> None:
    running = server.experiment(1, Status.RUNNING)
    prepare(server, running)
    command = [sys.executable, "-m", "gradprobe", "--url", server.url, "watch", running.id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert running.id in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"{running.id} goes on" in err
    assert "Traceback" not in out + err
    assert {request.method for request in server.requests} == {"GET"}


def test_gradients_prints_a_table_or_the_document(server: PreparedServer, cli: CommandLine) -> None:
    made = server.experiment(1)
    prepare(server, made)
    code, out, _ = cli("gradients", made.id, "--of", "outputs", "--layer", "layer1", "--start", "5", "--stop", "9")
    assert code == 0
    assert "layer6  1.00e-01" in out
    assert server.requests[0].query == {
        "of": "outputs", "layers": "layer1", "statistics": "mean_abs", "start": "5", "stop": "9",
    }  # fmt: skip
    code, out, _ = cli("gradients", made.id, "--json", "--statistic", "norm")
    assert SeriesDocument.model_validate_json(out) == server.series(VANISHING)
    assert server.requests[1].query == {"of": "weights", "statistics": "norm"}


def test_gradients_histogram_accounts_for_every_element(server: PreparedServer, cli: CommandLine) -> None:
    made = server.experiment(1)
    prepare(server, made)
    edges = [-1.0, -0.1, 0.0, 0.1, 1.0]
    layer = LayerHistogram(
        name="layer1", shape=[2, 5], size=10, edges=edges, counts=[[1, 2, 0, 4]], zero=[2], nonfinite=[1]
    )
    document = HistogramDocument(
        experiment_id=made.id, status=Status.SUCCEEDED, of="weights", steps=[0], layers=[layer],
        reduction=Reduction(method="none", points=1, of_points=1, bucket=1),
    )  # fmt: skip
    server.prepare("GET", f"/experiments/{made.id}/gradients/histograms", (200, document))
    code, out, _ = cli("gradients", made.id, "--histogram")
    assert code == 0
    assert "10 elements" in out
    assert "exactly zero: 2 (20.0 %)" in out
    assert "NaN or infinite: 1" in out
    shares = [float(share) for share in re.findall(r"([\d.]+) % *$", out, flags=re.M)]
    np.testing.assert_allclose(sum(shares), 70.0)


def test_cancel_retry_and_delete_report_what_became(server: PreparedServer, cli: CommandLine) -> None:
    made = server.experiment(1, Status.RUNNING)
    prepare(server, made)
    server.prepare("POST", f"/experiments/{made.id}/cancel", (202, made))
    server.prepare("POST", f"/experiments/{made.id}/retry", (202, server.experiment(1, Status.QUEUED)))
    server.prepare("DELETE", f"/experiments/{made.id}", (204, None))
    assert "stops at its next look" in cli("cancel", "last")[1]
    assert "queued" in cli("retry", made.id)[1]
    assert cli("delete", "--yes", made.id)[1] == f"{made.id} deleted\n"
    assert server.requests[-1].method == "DELETE"


def test_a_running_experiment_is_not_deleted(server: PreparedServer, cli: CommandLine) -> None:
    made = server.experiment(1, Status.RUNNING)
    refusal = server.problem(409, "EXPERIMENT_RUNNING", "The experiment is running; cancel it first.")
    server.prepare("DELETE", f"/experiments/{made.id}", (409, refusal))
    code, _, err = cli("delete", "--yes", made.id)
    assert (code, err) == (1, "gradprobe: The experiment is running; cancel it first. [EXPERIMENT_RUNNING]\n")


@pytest.mark.parametrize(
    "arguments",
    [("nonesuch",), ("list", "--nonesuch"), ("show",), ("list", "--limit", "0"), ("gradients", "last", "--of", "x"),
     ("submit", "/none/such.json"), ("up", "--port", "70000"), ("submit", "--set", "x")],
)  # fmt: skip
def test_a_wrong_command_is_one_line_and_exit_code_2(cli: CommandLine, arguments: Any) -> None:
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"gradprobe: [^\n]+\n", err)


def test_no_server_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert run(["--url", f"http://127.0.0.1:{port}", "list"]) == 3
    assert re.fullmatch(r"gradprobe: No server answers [^\n]+gradprobe up[^\n]+\n", capsys.readouterr().err)


def test_a_page_of_a_proxy_is_one_line(server: PreparedServer, cli: CommandLine) -> None:
    server.prepare("GET", "/experiments", (502, b"<html>\n<h1>Bad\nGateway</h1></html>"))
    code, _, err = cli("list")
    assert code == 1
    assert err.count("\n") == 1


def test_what_nobody_foresaw_is_one_line_too(
    server: PreparedServer, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradprobe.cli.session.Client", lambda *_, **__: 1 / 0)
    code, _, err = cli("list")
    assert code == 1
    assert err.startswith("gradprobe: unexpected ZeroDivisionError")
    monkeypatch.setenv("GRADPROBE_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        run(["list"])


def test_help_documents_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    for word in (
        "submit",
        "list",
        "show",
        "watch",
        "gradients",
        "diagnose",
        "predict",
        "cancel",
        "retry",
        "delete",
        "up",
        "demo",
        "migrate",
    ):
        assert word in out
    for code in (0, 1, 2, 3, 130):
        assert f"{code}: " in out
    assert run([]) == 0
    assert capsys.readouterr().out == out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"gradprobe {__version__}\n"


def test_migrate_brings_the_database_up_to_date_and_may_be_repeated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRADPROBE_DATA_DIRECTORY", str(tmp_path / "data"))
    assert run(["migrate"]) == 0
    first = capsys.readouterr().out
    assert re.fullmatch(r"sqlite:///.+gradprobe\.db is at revision \w+\n", first)
    assert run(["migrate"]) == 0
    assert capsys.readouterr().out == first


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_watch_on_a_terminal_draws_a_bar_and_a_line_per_layer(server: PreparedServer) -> None:
    made = server.experiment(1)
    prepare(server, made)
    running = server.experiment(1, Status.RUNNING, progress={"iteration": 1200, "iterations": 2500})
    server.prepare("GET", f"/experiments/{made.id}", (200, running), (200, running), (200, made))
    parent, child = os.openpty()
    command = [sys.executable, "-m", "gradprobe", "--url", server.url, "watch", made.id]
    environment = {**os.environ, "COLUMNS": "100", "LINES": "40", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=child, stdin=child, stderr=child, env=environment) as process:
        os.close(child)
        drawn = _read_all(parent)
        assert process.wait(20) == 0
    assert "1,200 / 2,500 (48 %)" in drawn
    assert "loss 1.500" in drawn
    assert re.search(r"layer6\W.*█{8}", drawn)
    assert "succeeded" in drawn


def _read_all(descriptor: int) -> str:
    parts = []
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(descriptor)
    return b"".join(parts).decode()
