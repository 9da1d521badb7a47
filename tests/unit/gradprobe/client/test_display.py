"""HTML for notebooks: well formed, and whatever a user named stays text."""

from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from gradprobe import display
from gradprobe.client import Histograms, LayerCounts, Metrics, Series
from gradprobe.group_resources import Remedies, Sweep, SweepComparison
from gradprobe.resources import DiagnosisDocument, Reduction
from gradprobe.state import Status
from tests.unit.gradprobe.client.test_plots import found
from tests.unit.gradprobe.prepared import PreparedServer

EVIL = """<script>alert(1)</script><img src=x onerror='alert("2")'> & "quoted" 'single' </td></table>"""
COUNTS = {"queued": 0, "running": 0, "succeeded": 2, "failed": 0, "cancelled": 0}
GROUP: dict[str, Any] = {
    "id": EVIL, "name": EVIL, "tags": {EVIL: EVIL}, "base": {}, "axes": {f"/network/{EVIL}": [EVIL, {"name": EVIL}]},
    "size": 2, "status": "ended", "counts": COUNTS, "progress": {"iteration": 1, "iterations": 2},
    "created_at": "2026-10-20T10:00:00Z", "owner": None, "links": {"self": "", "comparison": "", "experiments": ""},
    "members": [],
}  # fmt: skip
CHANGE: dict[str, Any] = {
    "arm": "plain", "id": EVIL, "patch": {}, "reason": EVIL, "size": 0, "planned": 1, "ended": 1,
    "verdicts": {EVIL: 1}, "means": {}, "effects": {}, "against_control": None, "enough": False,
}  # fmt: skip
WHOLE = Reduction(method="none", points=2, of_points=2, bucket=1)


def documents(server: PreparedServer) -> dict[str, Any]:
    remedy = {"id": EVIL, "patch": {"network": EVIL}, "reason": EVIL, "expected": {}}
    finding = found(EVIL, 0) | {"explanation": EVIL, "cause": EVIL, "detail": EVIL, "remedies": [remedy]}
    layer = LayerCounts(EVIL, (2,), 2, np.array([0.0, 1.0]), np.array([[2], [2]]), np.array([0, 0]), np.array([0, 0]))
    columns = {"status": ["succeeded"], "verdict": [EVIL], "cause": [EVIL], "final_loss": [0.5], "test_accuracy": [1.0]}
    comparison = {"sweep_id": EVIL, "status": "ended", "counts": COUNTS, "sort": None, "experiments": [EVIL]}
    ranking = {
        "plain": CHANGE, "changes": [CHANGE], "control": {"changes": 0, "enough": 0, "test_accuracy": None},
        "enough": None, "conclusion": EVIL,
    }  # fmt: skip
    trial = {"id": EVIL, "experiment_id": EVIL, "rule": EVIL, "seeds": [0], "enough": None, "ranking": ranking}
    trial |= {name: GROUP[name] for name in ("status", "counts", "progress", "created_at", "owner", "members")}
    trial |= {"links": {"self": "", "experiment": "", "experiments": ""}}
    error = {"code": EVIL, "message": EVIL}
    network = {"kind": "watched", "module": EVIL, "activation": {"name": EVIL}}
    return {
        "experiment": server.experiment(
            1, name=EVIL, tags={EVIL: EVIL}, notes=EVIL, verdict=EVIL, error=error, spec={"network": network}
        ),
        "diagnosis": DiagnosisDocument.model_validate(
            {
                "experiment_id": EVIL, "status": "succeeded", "version": 1, "preset": EVIL, "thresholds": {},
                "verdict": EVIL, "at_initialization": EVIL, "in_training": EVIL, "cause": EVIL, "summary": EVIL,
                "attribution": None, "failed_rules": [], "prediction": None, "findings": [finding],
            }
        ),
        "series": Series.of_document(server.series({EVIL: [1.0, 2.0]})),
        "metrics": Metrics.of_document(server.metrics([1.0, 2.0])),
        "histograms": Histograms(EVIL, Status.RUNNING, EVIL, np.array([0, 1]), (layer,), WHOLE, np.array([1, 1])),
        "sweep": Sweep.model_validate(GROUP),
        "comparison": SweepComparison.model_validate(comparison | {"axes": {"/" + EVIL: [EVIL]}, "columns": columns}),
        "remedies": Remedies.model_validate(trial),
    }  # fmt: skip


KINDS = ("experiment", "diagnosis", "series", "metrics", "histograms", "sweep", "comparison", "remedies")


class Tags(HTMLParser):
    """The tags and attributes that a browser sees, and the text between them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words += data


def read(markup: str) -> Tags:
    tags = Tags()
    tags.feed(markup)
    return tags


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_well_formed_and_what_a_user_named_is_text(server: PreparedServer, kind: str) -> None:
    markup = documents(server)[kind]._repr_html_()
    ElementTree.fromstring(markup)  # every tag is closed, in order
    tags = read(markup)
    assert tags.tags <= {"div", "b", "span", "table", "thead", "tbody", "tr", "th", "td", "code"}
    assert tags.attributes <= {"style", "class"}
    if kind != "metrics":  # where nothing is named by a user
        assert EVIL in tags.words or EVIL.replace("_", " ") in tags.words


@pytest.mark.parametrize("kind", KINDS)
def test_text_has_the_page_s_own_colour_on_its_own_ground(server: PreparedServer, kind: str) -> None:
    markup = documents(server)[kind]._repr_html_()
    styles = [part.split(":", 1) for part in markup.split('style="')[1:] for part in part.split('"')[0].split(";")]
    assert {name.strip() for name, *_ in styles} & {"color", "background", "background-color"} == set()


def test_it_tells_what_there_is_to_know(server: PreparedServer) -> None:
    words = read(server.experiment(1, name="baseline", verdict="vanishing")._repr_html_()).words
    for told in ("baseline", "succeeded", "vanishing", "2,500 of 2,500", "test accuracy 87.9 %", "course=dl-101"):
        assert told in words
    series = Series.of_document(server.series({f"layer{n}": [1.0, 2.0] for n in range(100)}))
    words = read(series._repr_html_()).words
    assert "layer0" in words
    assert "60 rows not shown" in words
    assert "layer99" in words


def test_nothing_recorded_is_said(server: PreparedServer) -> None:
    assert "Nothing was recorded" in Series.of_document(server.series({"layer1": []}))._repr_html_()


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("nan"), "–"), (12345, "12,345"), (0.0, "0"), (0.5, "0.5"), (1e-5, "1.00e-05"), ("x", "x")],
)
def test_numbers(value: Any, text: str) -> None:
    assert display.number(value) == text
