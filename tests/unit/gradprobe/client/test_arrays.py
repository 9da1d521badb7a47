import math
from typing import Any

import numpy as np
import pytest

from gradprobe.client import Histograms, Metrics, Series
from gradprobe.resources import HistogramDocument, LayerHistogram, Nonfinite, Reduction
from gradprobe.state import Status
from tests.unit.gradprobe.prepared import PreparedServer


def test_null_becomes_nan_and_named_values_become_themselves(server: PreparedServer) -> None:
    document = server.series(
        {"layer1": [1.0, None, None, None, None], "layer2": [None, 2.0, 3.0, 4.0, 5.0]},
        steps=[0, 10, 20, 30, 40],
        nonfinite=[
            Nonfinite(layer="layer1", step=10, statistic="mean_abs", value="inf"),
            Nonfinite(layer="layer1", step=20, statistic="mean_abs", value="-inf"),
            Nonfinite(layer="layer1", step=30, statistic="mean_abs", value="nan"),
            # Another layer and another statistic must not leak into these columns.
            Nonfinite(layer="layer3", step=40, statistic="mean_abs", value="inf"),
            Nonfinite(layer="layer2", step=0, statistic="norm", value="inf"),
        ],
    )
    series = Series.of_document(document)
    expected = [1.0, math.inf, -math.inf, math.nan, math.nan]
    np.testing.assert_array_equal(series["layer1"]["mean_abs"], expected)
    np.testing.assert_array_equal(series["layer2"]["mean_abs"], [math.nan, 2.0, 3.0, 4.0, 5.0])
    np.testing.assert_array_equal(series.matrix("mean_abs")[0], expected)
    assert series.steps.dtype == np.int64
    assert series["layer1"]["mean_abs"].dtype == np.float64
    assert series.names == ("layer1", "layer2")


def test_a_mark_on_a_step_with_two_points_leaves_the_number_alone(server: PreparedServer) -> None:
    document = server.series(
        {"layer1": [0.5, None, 2.0]},
        steps=[0, 0, 8],
        nonfinite=[Nonfinite(layer="layer1", step=0, statistic="mean_abs", value="inf")],
    )
    np.testing.assert_array_equal(Series.of_document(document)["layer1"]["mean_abs"], [0.5, math.inf, 2.0])


def test_an_empty_series_keeps_its_shape(server: PreparedServer) -> None:
    series = Series.of_document(server.series({"layer1": [], "layer2": []}))
    assert series.steps.shape == (0,)
    assert series.matrix("mean_abs").shape == (2, 0)


def test_an_unknown_layer_is_named_with_those_there_are(server: PreparedServer) -> None:
    series = Series.of_document(server.series({"layer1": [1.0]}))
    with pytest.raises(KeyError, match=r"layer9.*layer1"):
        series["layer9"]


def test_metrics_restore_values_in_training_and_in_evaluation(server: PreparedServer) -> None:
    marks = [
        Nonfinite(layer="", step=1, statistic="loss", value="nan"),
        Nonfinite(layer="", step=500, statistic="test_loss", value="inf"),
    ]
    metrics = Metrics.of_document(server.metrics([2.3, None, 2.1], *marks))
    np.testing.assert_array_equal(metrics["loss"], [2.3, math.nan, 2.1])
    np.testing.assert_array_equal(metrics.evaluation_steps, [0, 500])
    np.testing.assert_array_equal(metrics.test_loss, [2.3, math.inf])
    np.testing.assert_array_equal(metrics.test_accuracy, [0.1, 0.9])


@pytest.mark.parametrize("steps", [[], [0, 25]])
def test_histograms_have_a_row_of_counts_for_each_step(steps: Any) -> None:
    layer = LayerHistogram(
        name="layer1",
        shape=[2, 3],
        size=6,
        edges=[-1.0, 0.0, 0.5, 1.0],
        counts=[[1, 2, 3] for _ in steps],
        zero=[0 for _ in steps],
        nonfinite=[0 for _ in steps],
    )
    document = HistogramDocument(
        experiment_id="exp_1",
        status=Status.RUNNING,
        of="weights",
        steps=steps,
        layers=[layer],
        reduction=Reduction(method="none", points=len(steps), of_points=len(steps), bucket=1),
    )
    found = Histograms.of_document(document)["layer1"]
    assert found.counts.shape == (len(steps), 3)
    assert found.counts.sum() == 6 * len(steps)
    np.testing.assert_array_equal(found.edges, [-1.0, 0.0, 0.5, 1.0])
