"""What the client returns, as tables, pictures and HTML: the same values as its arrays."""

from collections.abc import Iterator
from xml.etree import ElementTree as ET

import httpx
import numpy as np
import pytest

from gradprobe import Client
from gradprobe.client import MissingLibrary
from gradprobe.client import optional as optional_libraries
from gradprobe.store.database import Database
from tests.integration.service import measured

LAYERS = ["layer1", "layer2", "layer3"]


@pytest.fixture
def ours(client: httpx.Client) -> Iterator[Client]:
    with Client(str(client.base_url)) as opened:
        yield opened


@pytest.fixture
def stored(database: Database, experiment_id: str) -> str:
    """An experiment that is running, with eight steps of everything."""
    record, _ = measured.claim(database, experiment_id)
    random = np.random.default_rng(0)
    elements = [[random.normal(0, 1e-3, size).astype(np.float32) for size in (3136, 16, 40)] for _ in range(8)]
    measured.write_counts(database, record, "weight_gradients", range(8), elements)
    measured.write_statistics(database, record, "output_gradients", range(8))
    measured.write_statistics(database, record, "metrics", range(8))
    return experiment_id


def test_a_series_is_a_long_table_in_both_libraries(ours: Client, stored: str) -> None:
    series = ours.gradients(stored, of="outputs", statistics=["norm", "max_abs"])
    frame, polars = series.to_pandas(), series.to_polars()
    assert len(frame) == polars.height == 3 * 2 * 8
    for layer in LAYERS:
        for statistic in ("norm", "max_abs"):
            rows = frame[(frame["layer"] == layer) & (frame["statistic"] == statistic)]
            np.testing.assert_array_equal(rows["value"], series[layer][statistic])
            np.testing.assert_array_equal(rows["step"], series.steps)
    assert frame["layer"].cat.categories.tolist() == LAYERS
    assert polars["value"].to_list() == frame["value"].tolist()
    assert polars["layer"].to_list() == frame["layer"].tolist()


def test_metrics_and_histograms_are_tables_too(ours: Client, stored: str) -> None:
    metrics = ours.metrics(stored)
    frame = metrics.to_pandas()
    loss = frame[frame["statistic"] == "loss"] if "statistic" in frame else frame[frame["metric"] == "loss"]
    np.testing.assert_array_equal(loss["value"], metrics["loss"])
    counts = ours.histograms(stored).to_pandas()
    assert counts.groupby(["step", "layer"], observed=True)["count"].sum().tolist() == [3136, 16, 40] * 8


def test_pictures_are_drawn_without_a_window(ours: Client, stored: str) -> None:
    diagnosis = ours.diagnosis(stored)
    flow = ours.gradients(stored, of="outputs").plot_gradient_flow(diagnosis=diagnosis)
    assert flow._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    shown = [label.get_text() for axes in flow.axes for label in axes.get_yticklabels()]
    assert set(LAYERS) <= set(shown)
    panels = ours.histograms(stored).plot_histograms()
    assert len(panels.axes) >= len(LAYERS)


def test_what_a_notebook_shows_is_well_formed_and_runs_nothing(ours: Client, stored: str) -> None:
    hostile = '</td><script>alert(1)</script><img src=x onerror="alert(1)">'
    changed = ours.update(stored, name=hostile, notes=hostile, tags={"a": hostile})
    shown = [
        changed,
        ours.diagnosis(stored),
        ours.gradients(stored, of="outputs"),
        ours.metrics(stored),
        ours.histograms(stored),
    ]
    for result in shown:
        html = result._repr_html_()
        tree = ET.fromstring(f"<div>{html.replace('&nbsp;', ' ')}</div>")
        assert {element.tag for element in tree.iter()} <= {
            "div", "table", "thead", "tbody", "tr", "th", "td", "b", "code", "span", "pre", "small",
            "strong", "ul", "li", "p", "em",
        }  # fmt: skip
        assert not any(name.startswith("on") for element in tree.iter() for name in element.attrib)
    assert "alert(1)" in "".join(ET.fromstring(f"<div>{changed._repr_html_()}</div>").itertext())


def test_a_library_that_is_missing_is_named(ours: Client, stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(optional_libraries, "import_module", missing)
    with pytest.raises(MissingLibrary, match=r'pandas, which is not installed.*pip install "gradprobe\[pandas\]"'):
        ours.metrics(stored).to_pandas()
