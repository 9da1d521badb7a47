"""A spec goes in, statistics come out, while it trains and afterwards: on real MNIST, by curl alone."""

import json
from typing import Any

import numpy as np
import pytest

from gradprobe import Client
from gradprobe.embedded import Stack
from tests.acceptance.conftest import curl, running_past, until

LAYERS = [f"layer{index}" for index in range(1, 7)]
SHAPES = [[10, 784], [10, 10], [10, 10], [10, 10], [10, 10], [10, 10]]


def post(stack: Stack, spec: dict[str, Any]) -> dict[str, Any]:
    status, headers, body = curl(
        "-X", "POST", f"{stack.url}/experiments", "-H", "Content-Type: application/json", "-d", json.dumps(spec)
    )
    assert status == 202
    assert headers["location"] == f"/experiments/{body['id']}"
    assert "retry-after" in headers
    return dict(body)


def test_curl_posts_follows_and_reads(stack: Stack) -> None:
    posted = post(stack, {"network": {"activation": "sigmoid"}, "training": {"iterations": 500}})
    url = f"{stack.url}/experiments/{posted['id']}"
    ended = until(lambda: (body := curl(url)[2])["finished_at"] and body, 120, "the end")
    assert ended["status"] == "succeeded", ended["error"]
    assert ended["progress"] == {"iteration": 500, "iterations": 500}
    assert ended["provenance"]["dataset_sha256"]

    gradients = curl(f"{url}/gradients")[2]
    assert gradients["steps"] == list(range(500))
    assert [layer["name"] for layer in gradients["layers"]] == LAYERS
    assert [layer["shape"] for layer in gradients["layers"]] == SHAPES
    for layer in gradients["layers"]:
        assert set(layer["statistics"]) >= {"mean_abs", "norm", "std", "max_abs", "zero_fraction", "nonfinite_count"}
        assert all(len(column) == 500 for column in layer["statistics"].values())
    assert gradients["nonfinite"] == []

    for of in ("weights", "outputs"):
        histograms = curl(f"{url}/gradients/histograms?of={of}")[2]
        assert histograms["steps"] == list(range(0, 500, 25))
        for layer in histograms["layers"]:
            counted = np.array(layer["counts"]).sum(axis=1) + layer["zero"] + layer["nonfinite"]
            assert set(counted.tolist()) == {layer["size"]}
            assert np.all(np.diff(layer["edges"]) > 0)
            assert len(layer["edges"]) == len(layer["counts"][0]) + 1

    metrics = curl(f"{url}/metrics")[2]
    assert metrics["steps"] == list(range(500))
    assert metrics["evaluation"]["steps"] == [0, 500]
    assert curl(f"{url}/gradients?start=10&stop=12&layers=layer6&statistics=norm")[2]["steps"] == [10, 11]


@pytest.mark.parametrize(
    ("activation", "within"), [("sigmoid", (100, np.inf)), ("relu", (0.1, 10)), ("leaky_relu", (0.1, 10))]
)
def test_gradients_starve_under_sigmoid_alone(client: Client, activation: str, within: tuple[float, float]) -> None:
    posted = client.create({"network": {"activation": activation}, "training": {"iterations": 30}})
    ended = client.wait(posted.id, timeout=60)
    assert ended.status == "succeeded"
    assert ended.verdict == ("vanishing" if activation == "sigmoid" else "healthy")
    found = client.diagnosis(posted.id)
    assert (found.verdict, found.failed_rules) == (ended.verdict, [])
    assert found.cause == ("activation_derivative" if activation == "sigmoid" else None)
    for of in ("weights", "outputs"):
        series = client.gradients(posted.id, of=of)  # type: ignore[arg-type]
        ratio = series["layer6"]["mean_abs"][0] / series["layer1"]["mean_abs"][0]
        assert within[0] < ratio < within[1], of


def test_statistics_are_readable_while_it_trains(client: Client) -> None:
    posted = client.create({"dataset": "synthetic", "training": {"iterations": 200_000}})
    running_past(client, posted.id, 0)
    first = client.gradients(posted.id)
    assert client.get(posted.id).status == "running"
    assert len(first.steps)
    later = until(lambda: (s := client.gradients(posted.id)) and len(s.steps) > len(first.steps) and s, what="growth")
    # What was read once is what it stays.
    assert np.array_equal(later["layer1"]["norm"][: len(first.steps)], first["layer1"]["norm"])
    assert client.cancel(posted.id).status == "running"
    ended = client.wait(posted.id, timeout=30)
    assert ended.status == "cancelled"
    stored = client.gradients(posted.id).steps
    assert np.array_equal(stored, np.arange(len(stored)))
    assert len(stored) >= len(later.steps)


def test_the_same_spec_gives_the_same_numbers(client: Client) -> None:
    spec = {"dataset": "synthetic", "network": {"activation": "tanh"}, "training": {"iterations": 120, "seed": 7}}
    runs = [client.wait(client.create(spec).id, timeout=60).id for _ in range(2)]
    first, second = (client.gradients(run, of="outputs").matrix("norm") for run in runs)
    assert np.array_equal(first, second)


def test_a_diverged_run_is_a_success_and_hides_nothing(client: Client) -> None:
    spec = {
        "dataset": "synthetic",
        "network": {"activation": "identity"},
        "optimizer": {"name": "sgd", "learning_rate": 1000.0},
        "training": {"iterations": 200},
    }
    ended = client.wait(client.create(spec).id, timeout=60)
    assert ended.status == "succeeded"
    assert ended.result is not None
    assert ended.result.final_loss is None
    document = client.gradients(ended.id)
    assert document["layer1"]["nonfinite_count"][-1] == document.layers[0].size
    assert np.isnan(document["layer1"]["mean_abs"][-1])


def test_what_can_never_run_fails_with_what_to_do(client: Client) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, so the experiment would run")
    ended = client.wait(client.create({"training": {"device": "cuda"}}).id, timeout=60)
    assert ended.status == "failed"
    assert ended.error is not None
    assert ended.error.code == "DEVICE_UNAVAILABLE"
    assert '"device": "auto"' in ended.error.message
