"""Another tool's event files as a run: what they hold is stored, judged, and what they don't is said."""

from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from gradprobe import Client, statistics
from gradprobe.cli.app import run
from gradprobe.diagnosis import Measurements, diagnose
from gradprobe.errors import NothingToImport
from gradprobe.importing.run import spec_of
from gradprobe.importing.tensorboard import read
from gradprobe.statistics import Tensor
from gradprobe.store.database import Database
from tests.integration.service import measured

STEPS = 40


def of_torch(directory: Path) -> list[dict[str, torch.Tensor]]:
    """A usual loop that writes a usual log, every second step; returns the gradients that it wrote."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    written = []
    with SummaryWriter(str(directory)) as writer:
        for step in range(0, STEPS, 2):
            inputs, labels = torch.randn(16, 8), torch.randint(0, 3, (16,))
            loss = nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            writer.add_scalar("Loss/train", loss.item(), step)
            writer.add_scalar("epoch", 0, step)
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None
                writer.add_histogram(f"{name}.grad", parameter.grad, step)
            written.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
            optimizer.step()
    return written


def test_a_usual_log_becomes_a_run(client: httpx.Client, tmp_path: Path) -> None:
    written = of_torch(tmp_path)
    found = read(tmp_path)
    assert (found.layers, found.sizes, found.every, found.stop, found.exact) == (["0", "2"], [48, 18], 2, 39, False)
    assert set(found.left) == {"epoch", "0.bias.grad", "2.bias.grad"}
    with Client(str(client.base_url)) as ours:
        made = ours.report(spec_of(found, "old run", {"from": "tensorboard"}, 3, 16), found.blocks, found.stop)
        series = ours.gradients(made.id)
        diagnosis = ours.diagnosis(made.id)
    assert (made.status, made.name, made.tags) == ("succeeded", "old run", {"from": "tensorboard"})
    assert series.steps.tolist() == list(range(0, STEPS, 2))
    for layer in ("0", "2"):
        gradients = [step[f"{layer}.weight"].double().numpy() for step in written]
        np.testing.assert_allclose(series[layer]["norm"], [np.linalg.norm(g) for g in gradients], rtol=1e-6)
        np.testing.assert_allclose(series[layer]["max_abs"], [np.abs(g).max() for g in gradients], rtol=1e-6)
        np.testing.assert_allclose(series[layer]["std"], [g.std() for g in gradients], rtol=1e-5)
        np.testing.assert_allclose(series[layer]["mean_abs"], [np.abs(g).mean() for g in gradients], rtol=0.06)
        assert np.isnan(series[layer]["zero_fraction"]).all()
    assert diagnosis.verdict == "undecided"
    assert any("output gradients" in reason for reason in diagnosis.silent)


@pytest.mark.parametrize(("loss", "hint"), [(True, "`--classes` says"), (False, "the name of a training loss")])
def test_what_is_not_judged_is_told_as_of_files_and_not_of_a_loop(tmp_path: Path, loss: bool, hint: str) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(3):
            writer.add_histogram("0.weight.grad", torch.ones(4), step)
            writer.add_scalar("train/loss" if loss else "criterion", 1.0, step)
    found = read(tmp_path)
    told = diagnose(Measurements(spec_of(found, "old run", {}, None, 1), found.blocks)).silent
    assert any(hint in reason for reason in told)
    assert not any(word in reason for word in ("record(", "criterion=", "the loop") for reason in told)


def test_what_we_export_comes_back_as_it_was(
    client: httpx.Client, database: Database, experiment_id: str, tmp_path: Path
) -> None:
    record, _ = measured.claim(database, experiment_id)
    tensors: list[Tensor] = ["weight_gradients", "output_gradients", "weights", "activations", "metrics"]
    for tensor in tensors:
        measured.write_statistics(database, record, tensor, range(12), seed=1)
    with Client(str(client.base_url)) as ours:
        ours.export(experiment_id, "tensorboard").save(tmp_path)
        found = read(tmp_path)
        made = ours.report(spec_of(found, "again", {}, None, 1), found.blocks, found.stop)
        assert found.exact
        for part, of in (("gradients", "weights"), ("gradients", "outputs"), ("weights", None), ("activations", None)):
            read_again = [
                client.get(f"/experiments/{identifier}/{part}", params={"of": of} if of else {}).json()["layers"]
                for identifier in (experiment_id, made.id)
            ]
            assert [layer["statistics"] for layer in read_again[0]] == [layer["statistics"] for layer in read_again[1]]
    assert statistics.names("metrics")


def test_the_command_line_tells_what_it_takes_and_what_not(
    client: httpx.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_torch(tmp_path / "logs")
    arguments = ["--url", str(client.base_url), "import", str(tmp_path / "logs")]
    assert run([*arguments, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "3 tags taken, 3 left; layers: 0, 2" in told
    assert "left: epoch" in told
    assert client.get("/experiments").json()["items"] == []
    assert run([*arguments, "--classes", "3"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "undecided" in told
    assert "not judged: vanishing and exploding: they are judged on the output gradients δ" in told
    assert client.get("/experiments").json()["items"][0]["name"] == "logs"


def test_where_there_is_nothing_it_says_where_to_look(tmp_path: Path) -> None:
    of_torch(tmp_path / "runs" / "first")
    with pytest.raises(NothingToImport, match=r"runs/first: import one run at a time"):
        read(tmp_path)
    with SummaryWriter(str(tmp_path / "empty")) as writer:
        writer.add_scalar("x", 1.0, 0)
    with pytest.raises(NothingToImport, match=r"Nothing in .* tells of a layer's gradients: there are 1 other"):
        read(tmp_path / "empty")
