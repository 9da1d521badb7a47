"""An ended experiment as a run of MLflow and of Weights & Biases, read back by the tools themselves."""

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gradprobe import Client
from gradprobe.cli import run
from gradprobe.settings import Settings
from gradprobe.store.database import Database
from tests.integration.service.serving import serving
from worker.execute import execute

pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]  # theirs, and many

SPEC = {
    "name": "six sigmoid layers",
    "tags": {"course": "dl-101"},
    "dataset": "synthetic",
    "training": {"iterations": 60, "device": "cpu"},
}


@pytest.fixture
def settings(tmp_path: Path, sqlite_template: Path) -> Settings:
    found = Settings(data_directory=tmp_path / "data", redis_url="redis://127.0.0.1:1/0")
    found.prepare_data_directory()
    shutil.copy(sqlite_template, str(found.database.database))
    return found


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with serving(settings) as served, Client(str(served.base_url)) as opened:
        yield opened


@pytest.fixture
def ended(client: Client, settings: Settings) -> str:
    identifier = client.create(SPEC).id
    database = Database(settings.database)
    execute(identifier, settings, database)
    database.close()
    return identifier


def test_mlflow_has_what_it_was_asked_for_and_what_it_came_to(
    client: Client, ended: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow  # noqa: PLC0415 - here alone

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    documents = []
    for _ in range(2):  # twice: it is one run, and each point is there once
        assert run(["--url", client.url, "export", ended, "--to", "mlflow", "--project", "course", "--json"]) == 0
        documents.append(json.loads(capsys.readouterr().out))
    assert documents[0] == documents[1] == {"tool": "mlflow", "run": documents[0]["run"], "where": uri}

    store = mlflow.MlflowClient(uri)
    place = store.get_experiment_by_name("course")
    [found] = store.search_runs([place.experiment_id])
    assert (found.info.run_id, found.info.run_name, found.info.status) == (
        documents[0]["run"], "six sigmoid layers", "FINISHED"
    )  # fmt: skip
    assert found.data.params["network.depth"] == "6"
    assert found.data.tags.items() >= {"course": "dl-101", "gradprobe.verdict": "vanishing"}.items()
    result = client.get(ended).result
    assert result is not None
    assert found.data.metrics["test_accuracy"] == pytest.approx(result.test_accuracy)
    delta = client.gradients(ended, of="outputs")
    assert found.data.metrics["delta_first/layer1"] == pytest.approx(delta["layer1"]["mean_abs"][0])
    losses = store.get_metric_history(found.info.run_id, "loss")
    assert sorted((point.step, point.value) for point in losses) == [
        (step, pytest.approx(value)) for step, value in enumerate(client.metrics(ended)["loss"])
    ]
    assert {file.path for file in store.list_artifacts(found.info.run_id)} == {
        "diagnosis.txt", f"{ended}.html", f"{ended}.png"
    }  # fmt: skip


def test_wandb_has_it_under_the_experiments_id(
    client: Client, ended: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    assert run(["--url", client.url, "export", ended, "--to", "wandb"]) == 0
    [directory] = (tmp_path / "wandb").glob("offline-run-*")
    assert capsys.readouterr().out == f"wandb: run {ended} of gradprobe, {directory}\n"
    assert {file.name for file in (directory / "files").iterdir()} >= {"diagnosis.txt", f"{ended}.html", f"{ended}.png"}

    records = _records(next(directory.glob("*.wandb")))
    history = [_items(record.history.item) for record in records if record.WhichOneof("record_type") == "history"]
    assert [entry["_step"] for entry in history] == list(range(60))
    assert [entry["loss"] for entry in history] == pytest.approx(list(client.metrics(ended)["loss"]))
    summary: dict[str, Any] = {}
    for record in records:
        if record.WhichOneof("record_type") == "summary":
            summary |= _items(record.summary.update)
    assert summary["verdict"] == "vanishing"
    [begun] = [record.run for record in records if record.WhichOneof("record_type") == "run"][:1]
    assert (begun.run_id, begun.project, begun.display_name) == (ended, "gradprobe", "six sigmoid layers")


def _records(path: Path) -> list[Any]:
    """wandb's own messages, out of its file: LevelDB's log, blocks of 32 KiB with pieces under 7 bytes of header."""
    from wandb.proto.wandb_internal_pb2 import Record  # noqa: PLC0415 - here alone

    content, place, begun, found = path.read_bytes(), 7, b"", []
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # no room for a header: the rest of the block is empty
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        begun += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last piece
            found.append(Record.FromString(begun))
            begun = b""
    return found


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.mark.parametrize("tool", ["mlflow", "wandb"])
def test_what_has_not_ended_is_not_logged(client: Client, tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    waiting = client.create(SPEC).id
    assert run(["--url", client.url, "export", waiting, "--to", tool]) == 1
    assert (
        capsys.readouterr().err == f"gradprobe: {waiting} is queued; log it once it has ended. [EXPERIMENT_NOT_ENDED]\n"
    )
