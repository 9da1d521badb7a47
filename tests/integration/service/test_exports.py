"""An experiment as a file: other tools read the numbers that were stored, to the last bit that their form has."""

import csv
import io
import json
import re
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from pyarrow import parquet
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from gradprobe import Client, statistics
from gradprobe.blocks import StatisticsBlock
from gradprobe.export import contents, forms
from gradprobe.export.contents import LAYER_TENSORS
from gradprobe.statistics import Tensor
from gradprobe.store.database import Database
from gradprobe.store.experiments import Record
from tests.databases import POSTGRESQL_AT_LENGTH
from tests.integration.service import measured
from tests.integration.service.problem_shape import assert_problem

LAYERS = ["layer1", "layer2", "layer3"]
STEPS = range(7)


@pytest.fixture
def record(database: Database, experiment_id: str) -> Record:
    return measured.claim(database, experiment_id)[0]


@pytest.fixture
def stored(database: Database, record: Record) -> dict[Tensor, StatisticsBlock]:
    """What a worker has stored so far: all statistics, and three numbers that are none."""
    found: dict[Tensor, StatisticsBlock] = {}
    for tensor in (*LAYER_TENSORS, "metrics"):
        if tensor != "clipped_weight_gradients":
            found[tensor] = measured.write_statistics(database, record, tensor, STEPS, seed=3)
    gradients = found["weight_gradients"]
    for step, value in ((7, np.nan), (8, np.inf), (9, -np.inf)):
        values = np.full((len(gradients.values), 3, 1), value, np.float32)
        more = measured.store(database, record, "weight_gradients", StatisticsBlock(np.array([step], np.int64), values))
        gradients = StatisticsBlock.join([gradients, more])
    measured.store(
        database, record, "evaluation", StatisticsBlock(np.array([0], np.int64), np.full((2, 1, 1), 0.5, np.float32))
    )
    return found | {"weight_gradients": gradients}


@pytest.fixture
def counted(database: Database, record: Record) -> list[list[npt.NDArray[np.float32]]]:
    """Histograms of these elements are stored, [step][layer]."""
    random = np.random.default_rng(5)
    elements = [[random.normal(0, 1e-4, size).astype(np.float32) for size in (3136, 16, 40)] for _ in STEPS]
    elements[0][1][:5] = 0.0
    elements[1][2][:] = np.nan
    measured.write_counts(database, record, "weight_gradients", STEPS, elements)
    return elements


def export(client: httpx.Client, experiment_id: str, query: str) -> httpx.Response:
    response = client.get(f"/experiments/{experiment_id}/export?{query}")
    assert response.status_code == 200, response.text
    return response


def test_csv_gives_every_number_back(
    client: httpx.Client, experiment_id: str, stored: dict[Tensor, StatisticsBlock]
) -> None:
    response = export(client, experiment_id, "format=csv")
    rows = list(csv.DictReader(io.StringIO(response.text, newline="")))
    assert response.headers["content-disposition"] == f'attachment; filename="{experiment_id}-layers.csv"'
    assert [(int(row["step"]), row["layer"]) for row in rows] == [
        (step, layer) for step in range(10) for layer in LAYERS
    ]
    for tensor in LAYER_TENSORS:
        for position, name in enumerate(statistics.names(tensor)):
            if tensor not in stored:
                assert f"{tensor}_{name}" not in rows[0]
                continue
            read = np.array([row[f"{tensor}_{name}"] for row in rows], np.float32).reshape(10, 3)
            expected = np.full((10, 3), np.nan, np.float32)
            expected[: len(stored[tensor].steps)] = stored[tensor].values[position].T
            np.testing.assert_array_equal(read, expected)


def test_metrics_are_a_row_a_step(
    client: httpx.Client, experiment_id: str, stored: dict[Tensor, StatisticsBlock]
) -> None:
    rows = list(csv.DictReader(io.StringIO(export(client, experiment_id, "format=csv&table=metrics").text, newline="")))
    np.testing.assert_array_equal(np.array([row["loss"] for row in rows], np.float32), stored["metrics"].values[0, 0])
    assert [row["test_accuracy"] for row in rows] == ["0.5", *["nan"] * 6]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_tables_of_arrow_give_every_number_back_and_say_what_was_measured(
    client: httpx.Client, experiment_id: str, stored: dict[Tensor, StatisticsBlock], form: str
) -> None:
    content = export(client, experiment_id, f"format={form}&start=2&stop=6").content
    table = parquet.read_table(io.BytesIO(content)) if form == "parquet" else pa.ipc.open_file(content).read_all()
    assert table["step"].to_pylist() == [step for step in range(2, 6) for _ in LAYERS]
    assert table["layer"].to_pylist() == LAYERS * 4
    for tensor in set(LAYER_TENSORS) & set(stored):
        for position, name in enumerate(statistics.names(tensor)):
            read = table[f"{tensor}_{name}"].to_numpy().reshape(4, 3)
            np.testing.assert_array_equal(read, stored[tensor].values[position, :, 2:6].T)
    about = json.loads(table.schema.metadata[b"gradprobe"])
    assert (about["id"], about["spec"]["network"]["depth"]) == (experiment_id, 3)


@pytest.mark.usefixtures("counted")
def test_histograms_are_a_row_a_bin_and_no_element_is_lost(client: httpx.Client, experiment_id: str) -> None:
    table = parquet.read_table(io.BytesIO(export(client, experiment_id, "format=parquet&table=histograms").content))
    found: dict[tuple[int, str], int] = {}
    for row in table.to_pylist():
        assert row["low"] <= row["high"] or np.isnan(row["low"])
        found[row["step"], row["layer"]] = found.get((row["step"], row["layer"]), 0) + row["count"]
    assert found == {(step, layer): size for step in STEPS for layer, size in zip(LAYERS, (3136, 16, 40), strict=True)}
    zeros = [row["count"] for row in table.to_pylist() if (row["step"], row["low"], row["high"]) == (0, 0.0, 0.0)]
    assert zeros == [5]


def test_tensorboard_reads_the_same_numbers(
    client: httpx.Client, experiment_id: str, stored: dict[Tensor, StatisticsBlock], tmp_path: Path
) -> None:
    loaded = in_tensorboard(client, experiment_id, tmp_path)
    for tensor, block in stored.items():
        for position, name in enumerate(statistics.names(tensor)):
            for layer, values in enumerate(block.values[position]):
                tag = f"{tensor}/{name}" + (f"/{LAYERS[layer]}" if tensor in LAYER_TENSORS else "")
                read = loaded.Tensors(tag)
                assert [event.step for event in read] == block.steps.tolist()
                numbers = np.array([make_ndarray(event.tensor_proto) for event in read])
                np.testing.assert_array_equal(numbers, values)


def test_tensorboard_reads_the_same_histograms(
    client: httpx.Client,
    experiment_id: str,
    counted: list[list[npt.NDArray[np.float32]]],
    tmp_path: Path,
) -> None:
    loaded = in_tensorboard(client, experiment_id, tmp_path)
    for layer, name in enumerate(LAYERS):
        for event in loaded.Tensors(f"weight_gradients/{name}"):
            buckets = make_ndarray(event.tensor_proto)  # [bucket, 3]: low, high, count
            elements = counted[event.step][layer].astype(np.float64)
            edges = np.append(buckets[:, 0], buckets[-1, 1])
            assert (np.diff(edges) > 0).all()
            assert buckets[:, 2].sum() == elements.size
            # On a bound an element belongs to the bin nearer to zero here, and to the upper one there.
            between = elements[~np.isin(elements, edges) | (elements == 0)]
            found = np.histogram(between, edges)[0]
            assert (found <= buckets[:, 2]).all()
            assert found.sum() >= elements.size - 2
    assert [event.step for event in loaded.Tensors("weight_gradients/layer3")] == [0, 2, 3, 4, 5, 6]  # 1 is all NaN


def in_tensorboard(client: httpx.Client, experiment_id: str, directory: Path) -> EventAccumulator:
    with Client(str(client.base_url)) as ours:
        path = ours.export(experiment_id, "tensorboard").save(directory)
    assert "tfevents" in path.name
    return EventAccumulator(str(directory), size_guidance={"tensors": 0}).Reload()


@POSTGRESQL_AT_LENGTH
def test_a_picture_and_a_page_that_asks_no_host(
    client: httpx.Client, experiment_id: str, stored: dict[Tensor, StatisticsBlock]
) -> None:
    hostile = '<img src="http://elsewhere.example/x" onerror="alert(1)">'
    client.patch(f"/experiments/{experiment_id}", json={"name": hostile})
    picture = export(client, experiment_id, "format=png")
    assert picture.content.startswith(b"\x89PNG\r\n\x1a\n")
    assert picture.content == export(client, experiment_id, "format=png").content
    page = export(client, experiment_id, "format=html")
    assert "&lt;img" in page.text
    assert hostile not in page.text
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', page.text) == []
    assert "sandbox" in page.headers["content-security-policy"]
    assert stored


@pytest.mark.parametrize("form", list(forms.KINDS))
def test_what_has_measured_nothing_yet_is_a_file_too(client: httpx.Client, experiment_id: str, form: str) -> None:
    assert export(client, experiment_id, f"format={form}").content


def test_the_same_state_is_not_sent_twice(client: httpx.Client, experiment_id: str) -> None:
    path = f"/experiments/{experiment_id}/export?format=csv"
    tag = client.get(path).headers["etag"]
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 304


def test_what_can_t_be_had_is_said(
    client: httpx.Client,
    experiment_id: str,
    stored: dict[Tensor, StatisticsBlock],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = f"/experiments/{experiment_id}/export"
    assert_problem(client.get(f"{path}?format=png&table=layers"), 422, "VALIDATION_FAILED")
    assert_problem(client.get(f"{path}?format=csv&max_points=3"), 422, "VALIDATION_FAILED")
    assert_problem(client.get(path), 422, "VALIDATION_FAILED")
    assert_problem(
        client.get("/experiments/exp_0000000000000000000000000a/export?format=csv"), 404, "EXPERIMENT_NOT_FOUND"
    )
    monkeypatch.setattr(contents, "MOST_VALUES", 10)
    assert_problem(client.get(f"{path}?format=csv"), 422, "EXPORT_TOO_LARGE")
    monkeypatch.setattr(forms, "find_spec", lambda _: None)
    body = assert_problem(client.get(f"{path}?format=parquet"), 501, "EXPORT_UNAVAILABLE")
    assert "pyarrow" in body["detail"]
    assert stored
