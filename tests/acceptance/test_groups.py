"""Sweeps and remedies on the whole stack: real workers, a member that fails, real MNIST, by the command line."""

import json

import pytest

from gradprobe import Client
from gradprobe.cli import run
from gradprobe.embedded import Stack


@pytest.mark.thorough
def test_one_post_takes_the_classic_net_over_85_percent(stack: Stack, client: Client) -> None:
    """Six sigmoid layers on MNIST, as they come by default; what the diagnosis proposes first, tried."""
    classic = client.wait(client.create({}).id, timeout=240)
    assert classic.verdict == "vanishing"
    made = client.remedies(classic.id, ["relu"], seeds=1, controls=1)
    assert [member.arm for member in made.members] == ["plain", "remedy", "control"]
    ended = client.wait_remedies(made.id, timeout=240)

    assert (ended.enough, ended.rule) == ("relu", "vanishing")
    plain, relu = ended.ranking.plain, next(one for one in ended.ranking.changes if one.id == "relu")
    assert relu.verdicts == {"healthy": 1}
    assert (plain.means["test_accuracy"] or 1.0) < 0.7
    assert (relu.means["test_accuracy"] or 0.0) > 0.85
    # Reran, the plain spec gives the very same numbers: the pairs differ in the change alone.
    assert classic.result is not None
    assert plain.means["test_accuracy"] == classic.result.test_accuracy
    assert (relu.means["delta_ratio"] or 0.0) > 100 * (plain.means["delta_ratio"] or 1.0)
    assert [one.id for one in client.list_remedies(classic.id)] == [made.id]


def test_no_single_remedy_is_enough_so_the_reconciler_combines_them(
    stack: Stack, client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too few iterations to learn anything: whatever is tried, none is enough, and the pairs are tried too."""
    monkeypatch.setenv("COLUMNS", "160")
    short = client.wait(client.create({"dataset": "synthetic", "training": {"iterations": 5}}).id, timeout=120)
    options = ["--remedy", "relu", "--remedy", "batch_normalization", "--seeds", "1", "--controls", "0"]
    assert run(["--url", stack.url, "remedy", short.id, *options]) == 1
    output = capsys.readouterr().out
    assert "None is enough by itself on all 1 seeds" in output
    for row in ("plain", "relu", "batch normalization", "batch normalization + relu"):
        assert any(line.startswith((row, row.replace("batch normalization + relu", "relu + batch normalization")))
                   for line in output.splitlines()), row  # fmt: skip
    (listed,) = client.list_remedies(short.id)
    ended = client.get_remedies(listed.id)
    assert {member.arm for member in ended.members} == {"plain", "remedy", "combination"}
    assert (ended.enough, ended.counts.succeeded) == (None, 4)
    assert "None is enough" in ended.ranking.conclusion


def test_a_member_that_fails_is_seen_and_stops_no_other(
    stack: Stack, client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, so none would fail")
    arguments = ["--set", "dataset=synthetic", "--set", "training.iterations=40", "--name", "devices"]
    axes = ["--axis", "/training/device=cuda,cpu", "--axis", "/network/activation=relu,tanh"]
    code = run(["--url", stack.url, "sweep", *arguments, *axes, "--watch", "--json", "--sort", "/training/device"])
    table = json.loads(capsys.readouterr().out)
    assert code == 1  # some failed
    assert table["axes"]["/training/device"] == ["cpu", "cpu", "cuda", "cuda"]
    columns = table["columns"]
    assert columns["status"] == ["succeeded", "succeeded", "failed", "failed"]
    assert columns["error"] == [None, None, "DEVICE_UNAVAILABLE", "DEVICE_UNAVAILABLE"]
    assert all(ratio > 0 for ratio in columns["delta_ratio_initial"][:2])
    assert columns["delta_ratio_initial"][2:] == [None, None]

    relu, tanh = table["experiments"][:2]
    delta = client.gradients(relu, of="outputs", statistics=["norm"])
    first = delta["layer1"]["norm"][0] / delta["layer6"]["norm"][0]
    assert columns["delta_ratio_initial"][0] == pytest.approx(first, rel=1e-5)
    found = client.compare([relu, tanh], of="outputs", include=["series", "metrics", "histograms"], max_points=8)
    assert found.items[0].series is not None
    assert found.items[1].series is not None
    assert found.items[0].series.steps == found.items[1].series.steps

    assert run(["--url", stack.url, "compare", table["sweep_id"], "--sort", "-final_loss"]) == 0
    told = capsys.readouterr().out
    assert [told.count(identifier[-8:]) for identifier in table["experiments"]] == [1] * 4
    assert told.count("failed") == 2
    monkeypatch.setenv("COLUMNS", "120")
    assert run(["--url", stack.url, "compare", relu, tanh]) == 0
    side_by_side = capsys.readouterr().out
    assert "devices: device cpu, activation relu" in side_by_side
    assert sum(line.startswith("layer") for line in side_by_side.splitlines()) == 1 + 6  # the heading, and each layer
    results = [client.get(one).result for one in (relu, tanh)]
    told = next(line.split() for line in side_by_side.splitlines() if line.startswith("test accuracy"))
    assert told[2::2] == [f"{result.test_accuracy * 100:.1f}" for result in results if result]  # not a last batch's
    client.delete_sweep(table["sweep_id"])
    assert list(client.list(sweep=table["sweep_id"])) == []
