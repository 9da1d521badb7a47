"""The same values as a data frame: one value a row, and nothing lost on the way."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from gradprobe.client import Histograms, LayerCounts, Metrics, QuantileSeries, Series
from gradprobe.client.arrays import tensor_of
from gradprobe.resources import Nonfinite, Reduction
from gradprobe.state import Status
from tests.unit.gradprobe.prepared import PreparedServer

WHOLE = Reduction(method="none", points=2, of_points=2, bucket=1)
NAMES = [f"layer{number}" for number in range(1, 12)]


@pytest.fixture
def series(server: PreparedServer) -> Series:
    mark = Nonfinite(layer="layer11", step=10, statistic="mean_abs", value="inf")
    columns = {name: [float(number), None] for number, name in enumerate(NAMES)}
    return Series.of_document(server.series(columns, steps=[0, 10], nonfinite=[mark]), "output_gradients")


def test_a_series_is_a_row_a_value(series: Series) -> None:
    frame = series.to_pandas()
    assert [*frame.columns] == ["step", "layer", "tensor", "statistic", "value"]
    assert len(frame) == 2 * len(NAMES)
    assert set(frame["tensor"]) == {"output_gradients"}
    for name in NAMES:
        np.testing.assert_array_equal(frame[frame["layer"] == name]["value"], series[name]["mean_abs"])
        np.testing.assert_array_equal(frame[frame["layer"] == name]["step"], series.steps)
    assert np.isposinf(frame["value"].iloc[-1])
    assert np.isnan(frame["value"].iloc[1])


def test_layers_keep_their_order_whatever_their_names(series: Series) -> None:
    wide = series.to_pandas().pivot(index="step", columns="layer", values="value")
    assert [*wide.columns] == NAMES
    assert series.to_polars().sort("layer")["layer"].unique(maintain_order=True).to_list() == NAMES


def test_both_kinds_of_frame_hold_the_same(series: Series) -> None:
    frame, other = series.to_pandas(), series.to_polars()
    assert other.columns == [*frame.columns]
    assert other["layer"].dtype == pl.Enum(NAMES)
    assert other["layer"].to_list() == [*frame["layer"]]
    np.testing.assert_array_equal(other["value"].to_numpy(), frame["value"].to_numpy())
    assert other["value"].null_count() == 0


def test_quantiles_are_statistics_with_steps_of_their_own(series: Series) -> None:
    quantiles = QuantileSeries(np.array([0]), {"layer1": {0.5: np.array([0.25])}}, WHOLE)
    with_them = Series(**{**vars(series), "quantiles": quantiles})
    last = with_them.to_pandas().iloc[-1]
    assert [*last] == [0, "layer1", "output_gradients", "quantile_0.5", 0.25]


def test_metrics_bring_those_of_the_test_set(server: PreparedServer) -> None:
    frame = Metrics.of_document(server.metrics([2.0, 1.0, None])).to_pandas()
    assert [*frame.columns] == ["step", "statistic", "value"]
    assert frame.groupby("statistic", observed=True).size().to_dict() == {
        "loss": 3,
        "test_loss": 2,
        "test_accuracy": 2,
    }


def test_every_element_of_a_histogram_is_in_one_row() -> None:
    layer = LayerCounts(
        "layer1",
        (2, 5),
        10,
        np.array([-1.0, 0.0, 1.0]),
        np.array([[3, 4], [0, 6]]),
        np.array([2, 0]),
        np.array([1, 4]),
    )
    histograms = Histograms("exp_1", Status.SUCCEEDED, "outputs", np.array([0, 25]), (layer,), WHOLE, np.array([1, 1]))
    frame = histograms.to_pandas()
    assert frame.groupby("step")["count"].sum().to_dict() == {0: 10, 25: 10}
    assert (frame["count"] > 0).all()
    assert frame[frame["low"].isna()]["count"].to_list() == [1, 4]
    assert frame[(frame["low"] == 0) & (frame["high"] == 0)]["count"].to_list() == [2]
    assert histograms.to_polars().height == len(frame)
    assert {*frame["tensor"]} == {"output_gradients"}


def test_what_holds_nothing_is_an_empty_frame_of_the_same_columns(server: PreparedServer) -> None:
    empty = Series.of_document(server.series({"layer1": []}))
    assert [*empty.to_pandas().columns] == ["step", "layer", "tensor", "statistic", "value"]
    assert empty.to_pandas().empty
    assert empty.to_polars().is_empty()
    nothing = Histograms("exp_1", Status.QUEUED, "weights", np.array([], dtype=np.int64), (), WHOLE, np.array([]))
    assert nothing.to_pandas().empty


def test_a_tensor_is_told_from_its_gradients() -> None:
    assert [tensor_of(of) for of in ("weights", "outputs", "clipped_weights", "activations")] == [
        "weight_gradients",
        "output_gradients",
        "clipped_weight_gradients",
        "activations",
    ]


@pytest.mark.parametrize(
    ("library", "call", "extra"),
    [
        ("pandas", "to_pandas()", "pandas"),
        ("polars", "to_polars()", "polars"),
        ("matplotlib", "plot_gradient_flow()", "plot"),
    ],
)
def test_a_library_that_is_missing_is_named_with_what_brings_it(library: str, call: str, extra: str) -> None:
    code = f"""
import sys
sys.modules[{library!r}] = None  # as where it is not installed: importing it fails
import numpy as np
from gradprobe.client import MissingLibrary, Series
from gradprobe.resources import Reduction
reduction = Reduction(method="none", points=0, of_points=0, bucket=1)
series = Series("exp_1", "queued", "weights", np.array([], dtype=np.int64), (), reduction)
try:
    series.{call}
except MissingLibrary as error:
    assert isinstance(error, ImportError)
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f'pip install "gradprobe[{extra}]"' in done.stdout
    assert library in done.stdout
