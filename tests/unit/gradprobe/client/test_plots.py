"""Pictures say what was measured: their titles, axes, colours and marks; and they touch no global state."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from gradprobe.client import Histograms, LayerCounts, Series
from gradprobe.resources import DiagnosisDocument, Reduction
from gradprobe.state import Status
from tests.unit.gradprobe.prepared import PreparedServer

PNG = b"\x89PNG\r\n\x1a\n"


def found(rule: str, first_step: int) -> dict[str, object]:
    return {
        "rule": rule, "version": 1, "phase": "in_training", "severity": "critical", "cause": "c", "detail": "",
        "layers": [], "layer_severity": {}, "first_step": first_step, "last_step": 9, "ongoing": True, "samples": 1,
        "evidence": {}, "explanation": "e", "remedies": [],
    }  # fmt: skip


DIAGNOSIS = DiagnosisDocument.model_validate(
    {
        "experiment_id": "exp_1", "status": "succeeded", "version": 1, "preset": None, "thresholds": {},
        "verdict": "vanishing", "at_initialization": "vanishing", "in_training": "healthy", "cause": None,
        "summary": "Vanishing from step 0.", "attribution": None, "failed_rules": [], "prediction": None,
        "findings": [found("vanishing", 0), found("dying_units", 7)],
    }
)  # fmt: skip


@pytest.fixture
def series(server: PreparedServer) -> Series:
    columns = {f"layer{number}": [10.0 ** (number - 4)] * 19 + [None] for number in (1, 2, 3)}
    return Series.of_document(server.series(columns), "output_gradients")


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(match=lambda part: hasattr(part, "get_text")))


def test_the_gradient_flow_has_labels_units_and_the_verdict(series: Series) -> None:
    figure = series.plot_gradient_flow(diagnosis=DIAGNOSIS)
    figure.canvas.draw()
    flow, profile, bar = figure.axes
    assert figure.get_suptitle() == "Vanishing from step 0."
    assert flow.get_xlabel().startswith("training step")
    assert "grey: zero or not finite" in flow.get_xlabel()
    assert [label.get_text() for label in flow.get_yticklabels()] == ["layer1", "layer2", "layer3"]
    assert bar.get_ylabel() == profile.get_xlabel() == "mean |δ|"
    assert profile.get_xscale() == "log"
    (mesh,) = flow.collections
    assert isinstance(mesh.norm, LogNorm)
    assert (mesh.norm.vmin, mesh.norm.vmax) == (pytest.approx(1e-3), pytest.approx(1e-1))
    assert flow.get_title(loc="left") == "vanishing from step 0 · dying units from step 7"
    assert [line.get_xdata()[0] for line in flow.lines] == [7]  # type: ignore[index]
    for wanted in ("exp_", "δ = ∂L/∂z", "first step", "mean of the run"):
        assert wanted in words(figure)


def test_the_picture_holds_the_numbers(series: Series) -> None:
    figure = series.plot_gradient_flow()
    (mesh,) = figure.axes[0].collections
    drawn = np.ma.getdata(mesh.get_array()).reshape(3, 20)
    np.testing.assert_array_equal(drawn, np.where(np.isnan(drawn), np.nan, series.matrix("mean_abs")))
    assert np.ma.getmaskarray(mesh.get_array()).reshape(3, 20)[:, -1].all()
    first, mean = figure.axes[1].lines
    np.testing.assert_allclose(np.asarray(first.get_xdata()), [1e-3, 1e-2, 1e-1])
    np.testing.assert_allclose(np.asarray(mean.get_xdata()), [1e-3, 1e-2, 1e-1])


def test_a_long_run_is_condensed_and_a_reduced_one_has_a_column_a_bucket(server: PreparedServer) -> None:
    rng = np.random.default_rng(0)
    values = rng.lognormal(-5, 1, 5000).tolist()
    long = Series.of_document(server.series({"layer1": values}))
    (mesh,) = long.plot_gradient_flow().axes[0].collections
    assert np.ma.getdata(mesh.get_array()).size <= 800
    document = server.series({"layer1": [1.0, 100.0, 1.0, 100.0]}, steps=[0, 7, 8, 15])
    reduction = Reduction(method="minmax", points=4, of_points=16, bucket=8)
    reduced = Series.of_document(document.model_copy(update={"reduction": reduction}))
    figure = reduced.plot_gradient_flow()
    (mesh,) = figure.axes[0].collections
    np.testing.assert_allclose(np.ma.getdata(mesh.get_array()).ravel(), [10.0, 10.0])
    assert "8 iterations a column" in figure.get_suptitle()


@pytest.mark.parametrize("values", [[], [None, None], [0.0, 0.0]])
def test_nothing_to_draw_is_said(server: PreparedServer, values: list[float | None]) -> None:
    figure = Series.of_document(server.series({"layer1": values})).plot_gradient_flow()
    figure.canvas.draw()
    assert "Nothing above zero was recorded" in words(figure)


def test_shares_are_on_a_linear_scale(server: PreparedServer) -> None:
    document = server.series({"layer1": [0.0, 0.5]}, statistic="zero_fraction")
    figure = Series.of_document(document).plot_gradient_flow("zero_fraction")
    assert not isinstance(figure.axes[0].collections[0].norm, LogNorm)
    with pytest.raises(KeyError):
        Series.of_document(document).plot_gradient_flow("norm")


def test_distributions_have_a_panel_a_layer_and_lose_no_element() -> None:
    edges = np.array([-1.0, -0.1, -0.01, 0.0, 0.01, 0.1, 1.0])
    counts = np.array([[1, 2, 0, 0, 3, 4]] * 3)
    zero = np.zeros(3, dtype=np.int64)
    layers = tuple(LayerCounts(f"layer{number}", (10,), 10, edges, counts, zero, zero) for number in range(20))
    whole = Reduction(method="none", points=3, of_points=3, bucket=1)
    steps = np.array([0, 25, 50])
    figure = Histograms("exp_1", Status.SUCCEEDED, "outputs", steps, layers, whole, steps).plot_histograms()
    figure.canvas.draw()
    panels = [axes for axes in figure.axes if axes.get_title(loc="left").startswith("layer")]
    assert (len(panels), panels[0].get_title(loc="left"), panels[-1].get_title(loc="left")) == (12, "layer0", "layer19")
    for axes in panels:
        shares = np.ma.getdata(axes.collections[0].get_array()).reshape(-1, 3)
        np.testing.assert_allclose(shares.sum(axis=0), 1.0)
    assert "12 of 20 layers" in words(figure)
    assert "magnitude |δ|" in words(figure)


def test_a_figure_belongs_to_no_window_and_shows_itself_in_a_notebook(series: Series) -> None:
    figure = series.plot_gradient_flow()
    assert figure._repr_png_().startswith(PNG)  # type: ignore[attr-defined]
    code = "import gradprobe.client.plots, sys; print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
