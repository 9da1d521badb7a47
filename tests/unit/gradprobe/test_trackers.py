"""Where a tracker is missing, or the options contradict each other; what is logged is tried in tests/integrations."""

import sys
from collections.abc import Callable

import pytest

from gradprobe import Client
from gradprobe.cli import run
from gradprobe.client.errors import MissingLibrary
from gradprobe.trackers import Logged, log_to_mlflow, log_to_wandb


@pytest.mark.parametrize(("log", "tool"), [(log_to_mlflow, "mlflow"), (log_to_wandb, "wandb")])
def test_a_tool_that_is_missing_is_named(
    log: Callable[[Client, str], Logged], tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, tool, None)
    with Client("http://127.0.0.1:9") as client, pytest.raises(MissingLibrary, match=rf"gradprobe\[{tool}\]"):
        log(client, "exp_01")


@pytest.mark.parametrize("option", [("--output", "x"), ("--table", "layers"), ("--start", "1"), ("--force",)])
def test_no_file_is_written_beside_a_run(option: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--url", "http://127.0.0.1:9", "export", "last", "--to", "wandb", *option]) == 2
    assert "With --to no file is written" in capsys.readouterr().err
