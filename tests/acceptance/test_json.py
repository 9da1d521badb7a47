"""`--json`: every command that prints data has it, and prints documents alone, on a real stack."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from typer.main import get_command

from gradprobe import Client
from gradprobe.cli import run
from gradprobe.cli.app import app
from gradprobe.embedded import Stack
from gradprobe.settings import Settings

SPEC: dict[str, Any] = {"dataset": "synthetic", "training": {"iterations": 60}}
SET = ("--set", "dataset.name=synthetic", "--set", "training.iterations=60")
#: Those that print no data: they serve until they are stopped.
SERVERS = {"up", "serve"}
#: Those that want an object store, with one: `tests/integration/objects/`.
WITH_A_STORE = {"archive"}
#: Those that print a document a line, as it comes.
STREAMS = {"watch"}
#: How each is called; {id} is an experiment that has ended, {directory} an empty directory.
COMMANDS = {
    "submit": (*SET,),
    "list": ("--limit", "2"),
    "show": ("{id}",),
    "watch": ("{id}", "last"),
    "gradients": ("{id}", "--layer", "layer1"),
    "diagnose": ("{id}",),
    "export": ("{id}", "--format", "csv", "--output", "{directory}"),
    "import": ("{directory}",),
    "remedy": ("{id}", "--seeds", "1", "--controls", "0"),
    "sweep": ("--axis", "/training/seed=0,1", *SET),
    "compare": ("{id}", "last"),
    "cancel": ("{id}",),
    "retry": ("{cancelled}",),
    "delete": ("{deleted}",),
    "predict": ("--depth", "4"),
    "demo": ("--data-directory", "{directory}"),
    "run": (*SET, "--data-directory", "{directory}"),
    "migrate": (),
    "backup": ("{directory}/copy.db",),
    "purge": (),
    "keys create": ("alice",),
    "keys list": (),
    "keys revoke": ("{key}",),
}


def commands(group: click.Command, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command of the application, by the words that a user types."""
    for name, command in getattr(group, "commands", {}).items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


ALL = dict(commands(get_command(app)))


def test_every_command_that_prints_data_takes_json() -> None:
    without = {
        name for name, command in ALL.items() if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without == SERVERS
    assert set(COMMANDS) == set(ALL) - SERVERS - WITH_A_STORE


@pytest.fixture(scope="module")
def ended(stack: Stack) -> str:
    """A sigmoid network of six layers: its gradients vanish, so that there is something to remedy."""
    with Client(stack.url) as client:
        return client.wait(client.create(SPEC).id, timeout=120).id


@pytest.fixture(scope="module")
def others(stack: Stack) -> dict[str, str]:
    """An experiment to be tried again, and one to be deleted."""
    with Client(stack.url) as client:
        long = SPEC | {"training": {"iterations": 100_000}}
        cancelled = client.wait(client.cancel(client.create(long).id).id).id
        deleted = client.wait(client.create(SPEC).id).id
    return {"cancelled": cancelled, "deleted": deleted}


@pytest.fixture
def words(
    ended: str,
    others: dict[str, str],
    mnist_directory: Path,
    sqlite_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, str]:
    """What stands for the names in braces; the database of the settings is one of its own."""
    monkeypatch.setenv("GRADPROBE_DATA_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("GRADPROBE_DATASETS_DIRECTORY", str(mnist_directory))
    shutil.copy(sqlite_template, str(Settings(data_directory=tmp_path).database.database))
    return others | {"id": ended, "directory": str(tmp_path / "d")}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.thorough] * (name in ("demo", "run"))) for name in sorted(COMMANDS)]
)
def test_it_prints_documents_and_nothing_else(
    name: str, stack: Stack, words: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "d").mkdir()
    if name == "keys revoke":
        assert run(["keys", "create", "alice", "--json"]) == 0
        words["key"] = json.loads(capsys.readouterr().out)["id"]
    if name == "import":
        with Client(stack.url) as client:
            client.export(words["id"], "tensorboard").save(words["directory"])
    if name == "remedy":
        with Client(stack.url) as client:
            remedy = client.diagnosis(words["id"]).findings[0].remedies[0].id
        arguments = ["{id}", "--remedy", remedy, *COMMANDS[name][1:]]
    else:
        arguments = [*COMMANDS[name]]
    code = run(["--url", stack.url, *name.split(), *(word.format(**words) for word in arguments), "--json"])
    out, err = capsys.readouterr()
    assert code in ((0, 1) if name in ("remedy", "watch") else (0,)), err
    found = [json.loads(line) for line in out.splitlines()] if name in STREAMS else [json.loads(out)]
    assert found
    assert all(isinstance(document, dict | list) for document in found)
    assert "\x1b" not in out
    if name == "retry":
        with Client(stack.url) as client:
            client.cancel(found[0]["id"])
    if name == "demo":
        assert [entry["diagnosis"]["verdict"] for entry in found[0]] == ["vanishing", "healthy", "healthy"]
