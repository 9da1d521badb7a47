"""`gradprobe watch` of several experiments at once."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from gradprobe.cli import run
from gradprobe.resources import Experiment
from gradprobe.state import Status
from tests.unit.gradprobe.cli.test_commands import VANISHING, _read_all, prepare
from tests.unit.gradprobe.prepared import PreparedServer

CommandLine = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(server: PreparedServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("COLUMNS", "140")

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["--url", server.url, *arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


@pytest.fixture
def watched(server: PreparedServer) -> tuple[Experiment, Experiment]:
    """One that runs for two looks and one that waits for one; both end, the second cancelled."""
    ended = server.experiment(1, name="[b]first", verdict="vanishing"), server.experiment(2, Status.CANCELLED)
    prepare(server, *ended)
    half = {"iteration": 1200, "iterations": 2500}
    running = server.experiment(1, Status.RUNNING, name="[b]first", progress=half)
    first, second = (f"/experiments/{experiment.id}" for experiment in ended)
    server.prepare("GET", first, (200, running), (200, running), (200, running), (200, ended[0]))
    server.prepare("GET", second, (200, server.experiment(2, Status.QUEUED)), (200, ended[1]))
    server.prepare("GET", f"{second}/gradients", (200, server.series({name: [1.0] * 40 for name in VANISHING})))
    return ended


def test_in_a_pipe_there_is_a_line_a_change_and_a_table_at_the_end(
    cli: CommandLine, watched: tuple[Experiment, Experiment]
) -> None:
    code, out, err = cli("watch", *(experiment.id for experiment in watched))
    assert (code, err) == (1, "")  # one was cancelled
    lines = [line.split()[1:3] for line in out.splitlines() if re.match(r"\d\d:", line)]
    assert [status for identifier, status in lines if identifier == watched[0].id] == ["running", "succeeded"]
    assert [status for identifier, status in lines if identifier == watched[1].id] == ["cancelled"]
    rows = out.partition("experiment ")[2].splitlines()
    assert re.search(r"\[b\]first +succeeded +100 % +1\.500 .* 1\.00e-06 +1/100,000 +▁+ +vanishing", rows[1])
    assert re.search(r"run 2 +cancelled +0 % +1\.500 .* 1\.00e\+00 +1 +█+", rows[2])
    assert "▁ 1.0e-06 … █ 1.0e+00" in rows[3]
    assert "\x1b" not in out


def test_json_is_a_document_a_line_at_each_change(
    cli: CommandLine, server: PreparedServer, watched: tuple[Experiment, Experiment]
) -> None:
    code, out, _ = cli("watch", "--json", *(experiment.id for experiment in watched))
    told = [Experiment.model_validate(json.loads(line)) for line in out.splitlines()]
    assert code == 1
    assert [one.status for one in told if one.id == watched[0].id] == [Status.RUNNING, Status.SUCCEEDED]
    assert [one.status for one in told if one.id == watched[1].id] == [Status.QUEUED, Status.CANCELLED]
    # What has ended is not asked for again, and no statistics are read that nobody prints.
    assert [request.path for request in server.requests].count(f"/experiments/{watched[1].id}") == 2
    assert not [request for request in server.requests if request.path.endswith("gradients")]


def test_the_same_one_twice_is_watched_once(cli: CommandLine, server: PreparedServer) -> None:
    made = server.experiment(1)
    prepare(server, made)
    code, out, _ = cli("watch", "--json", "last", made.id, made.id[-4:])
    assert code == 0
    assert len(out.splitlines()) == 1


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_a_terminal_has_a_table_that_is_drawn_anew(
    server: PreparedServer, watched: tuple[Experiment, Experiment]
) -> None:
    parent, child = os.openpty()
    command = [sys.executable, "-m", "gradprobe", "--url", server.url, "watch", *(one.id for one in watched)]
    environment = {**os.environ, "COLUMNS": "140", "LINES": "40", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=child, stdin=child, stderr=child, env=environment) as process:
        os.close(child)
        drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", _read_all(parent))
        assert process.wait(20) == 1
    assert re.search(r"\[b\]first +running +48 %", drawn)
    assert re.search(r"\[b\]first +succeeded +100 %", drawn)
    assert re.search(r"run 2 +cancelled", drawn)


def test_ctrl_c_leaves_them_running(server: PreparedServer) -> None:
    running = [server.experiment(number, Status.RUNNING) for number in (1, 2)]
    prepare(server, *running)
    command: list[Any] = [sys.executable, "-m", "gradprobe", "--url", server.url, "watch", *(one.id for one in running)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "the experiments go on" in err
    assert "Traceback" not in out + err
