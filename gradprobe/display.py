"""Documents as HTML, for notebooks: compact, on light and on dark, and whatever a user named is text, never markup."""

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gradprobe.sparkline import scale_caption, scale_of, sparkline

if TYPE_CHECKING:
    from gradprobe.client.arrays import Histograms, Metrics, Series
    from gradprobe.group_resources import Remedies, Sweep, SweepComparison
    from gradprobe.resources import DiagnosisDocument, Experiment, FindingDocument

#: Middle tones, beside text in the page's own colour: legible on white and on black.
_GREEN, _AMBER, _RED, _BLUE, _VIOLET = "#2e9e5b", "#c98a00", "#d9534f", "#3b8ed8", "#9467bd"
_COLOURS: Final = {
    "queued": _AMBER, "running": _BLUE, "succeeded": _GREEN, "failed": _RED, "cancelled": _VIOLET, "ended": _GREEN,
    "healthy": _GREEN, "undecided": _AMBER, "warning": _AMBER, "critical": _RED,
}  # fmt: skip
_LINE = "1px solid rgba(128,128,128,.45)"
_CELL = "padding:1px 12px 1px 0;text-align:left;vertical-align:top;border:0"
_HEAD = f"{_CELL};border-bottom:{_LINE};font-weight:600;opacity:.75"
_MOST_ROWS = 40
_SPARKS = 40  # characters
_NOTHING = "–"


class Markup(str):
    """HTML that was made here; every other string is text."""

    __slots__ = ()


def text(value: Any) -> Markup:
    """A value as text: no tag, no attribute and no entity of its own."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(_NOTHING if value is None else str(value)))


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> Markup:
    """A table of text; a very long one without its middle."""
    found = [*rows]
    half = _MOST_ROWS // 2
    if len(found) > _MOST_ROWS:
        gap = [f"⋮ ({len(found) - _MOST_ROWS} rows not shown)", *[""] * (len(headings) - 1)]
        found = [*found[:half], gap, *found[-half:]]
    head = "".join(f'<th style="{_HEAD}">{text(heading)}</th>' for heading in headings)
    cells = ("".join(f'<td style="{_CELL}">{text(cell)}</td>' for cell in row) for row in found)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    below = f'<div style="opacity:.7;font-size:.9em">{text(caption)}</div>' if caption else ""
    return Markup(
        f'<table style="border-collapse:collapse;margin:.3em 0"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>{below}"
    )


def facts(pairs: Iterable[tuple[str, Any]]) -> Markup:
    """Headings and values, those without a value left out."""
    rows = "".join(
        f'<tr><td style="{_CELL};opacity:.7">{text(heading)}</td><td style="{_CELL}">{text(value)}</td></tr>'
        for heading, value in pairs
        if value not in (None, "")
    )
    return Markup(f'<table style="border-collapse:collapse;margin:.3em 0"><tbody>{rows}</tbody></table>')


def badge(word: str | None) -> Markup:
    """A status or a verdict with its colour beside it."""
    if not word:
        return Markup("")
    colour = _COLOURS.get(word, _RED)
    style = f"border:{_LINE};border-left:.45em solid {colour};border-radius:.3em;padding:0 .45em;white-space:nowrap"
    return Markup(f'<span style="{style}">{text(word.replace("_", " "))}</span>')


def card(title: Any, badges: Iterable[str | None], *parts: Markup) -> str:
    """A heading with its badges, and what stands below it."""
    marks = " ".join(badge(word) for word in badges if word)
    style = "line-height:1.45;overflow-x:auto;max-width:100%"
    return f'<div class="gradprobe" style="{style}"><div><b>{text(title)}</b> {marks}</div>{"".join(parts)}</div>'


def code(value: Any) -> Markup:
    """An id, or JSON."""
    return Markup(f"<code>{text(value)}</code>")


def number(value: Any) -> str:
    """Three significant digits; a dash for what is not known."""
    if value is None or isinstance(value, str | bool):
        return _NOTHING if value is None else str(value)
    if isinstance(value, int) or math.isnan(value):
        return _NOTHING if isinstance(value, float) else f"{value:,}"
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"


def percent(share: float | None) -> str:
    """A share 0…1 as a percentage."""
    return _NOTHING if share is None or math.isnan(share) else f"{100 * share:.1f} %"


def short(value: Any) -> str:
    """A value of an axis: a name where it has one, else JSON."""
    if isinstance(value, Mapping) and "name" in value:
        return str(value["name"])
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def experiment(found: "Experiment") -> str:
    """What it is, how far it is, what came of it."""
    network, result, spec = found.spec.get("network", {}), found.result, found.spec
    done, of = found.progress.iteration, found.progress.iterations
    training, optimizer = spec.get("training", {}), spec.get("optimizer", {})
    what = [network.get("module") if network.get("kind") == "watched" else network.get("kind")]
    what += [
        f"{network[part]} {unit}" for part, unit in (("depth", "layers"), ("width", "units wide")) if network.get(part)
    ]
    what += [short(network[part]) for part in ("activation", "initialization") if network.get(part)]
    came = result and f"loss {number(result.final_loss)}, test accuracy {percent(result.test_accuracy)}"
    rows: list[tuple[str, Any]] = [
        ("id", code(found.id)),
        ("network", ", ".join(str(part) for part in what if part)),
        ("training", f"{optimizer.get('name')}, batches of {training.get('batch_size')}, seed {training.get('seed')}"),
        ("tags", ", ".join(f"{key}={value}" for key, value in found.tags.items())),
        ("notes", found.notes),
        ("progress", f"{done:,} of {of:,} iterations"),
        ("result", came and f"{came}, {number(result.seconds)} s" if result else None),
        ("error", found.error and f"{found.error.message} [{found.error.code}]"),
    ]
    return card(found.name or "Experiment", (found.status, found.verdict), facts(rows))


def diagnosis(found: "DiagnosisDocument") -> str:
    """The verdict in words, and a row per finding with the first remedy."""
    phases = f"at initialization {found.at_initialization}; in training {found.in_training}".replace("_", " ")
    rows = [
        (
            badge(finding.severity),
            finding.rule.replace("_", " "),
            Markup(f'<span style="white-space:nowrap">{finding.first_step:,} … {finding.last_step:,}</span>'),
            f"{finding.cause}{f', {finding.detail}' if finding.detail else ''}".replace("_", " "),
            finding.explanation,
            _remedy(finding),
        )
        for finding in found.findings
    ]
    parts = [facts([("experiment", code(found.experiment_id)), ("phases", phases), ("judged by", found.preset)])]
    if rows:
        parts.append(table(("", "finding", "steps", "cause", "evidence in words", "would help"), rows))
    return card(found.summary, (found.verdict,), *parts)


def _remedy(finding: "FindingDocument") -> Any:
    first = next(iter(finding.remedies), None)
    return None if first is None else Markup(f"{text(first.reason)} {code(json.dumps(first.patch))}")


def sweep(found: "Sweep") -> str:
    """Its axes, and how many members are in which state."""
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.model_dump().items() if count)
    rows: list[tuple[str, Any]] = [
        ("id", code(found.id)),
        *((pointer, ", ".join(short(value) for value in values)) for pointer, values in found.axes.items()),
        ("experiments", f"{found.size}: {counts}"),
        ("progress", f"{found.progress.iteration:,} of {found.progress.iterations:,} iterations"),
        ("tags", ", ".join(f"{key}={value}" for key, value in found.tags.items())),
    ]
    return card(found.name or "Sweep", (found.status,), facts(rows))


def sweep_comparison(found: "SweepComparison") -> str:
    """A row per member: its values on the axes, its verdict, and what came of it."""
    numbers = {"delta_ratio_initial": "δ₁ ÷ δ_N", "delta_ratio_mean": "its mean", "final_loss": "loss"}
    rows = []
    for row, identifier in enumerate(found.experiments):
        member = {name: column[row] for name, column in found.columns.items()}
        axes = [short(values[row]) for values in found.axes.values()]
        marks = [badge(member.get(name)) or None for name in ("status", "verdict")]
        came = [number(member.get(name)) for name in numbers]
        rows.append([code(identifier[-8:]), *axes, *marks, *came, percent(member.get("test_accuracy"))])
    headings = ["id (end)", *(pointer.rpartition("/")[2] for pointer in found.axes)]
    headings += ["status", "verdict", *numbers.values(), "test accuracy"]
    return card(f"Sweep {found.sweep_id}", (found.status,), table(headings, rows))


def remedies(found: "Remedies") -> str:
    """The conclusion, and a row per change, best first."""
    rows = [
        (
            change.id.replace("_", " "),
            change.arm,
            f"{change.ended} of {change.planned}",
            ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in change.verdicts.items()),
            number(change.means.get("final_loss")),
            percent(change.means.get("test_accuracy")),
            "yes" if change.enough else "",
        )
        for change in (found.ranking.plain, *found.ranking.changes)
    ]
    headings = ("change", "arm", "seeds", "verdicts", "loss", "test accuracy", "enough")
    return card(found.ranking.conclusion, (found.status,), table(headings, rows))


def series(found: "Series") -> str:
    """A row per layer: its first value, its mean and its last, and its way over the run."""
    statistics = [*found.layers[0].statistics] if found.layers else []
    chosen = "mean_abs" if "mean_abs" in statistics else next(iter(statistics), "")
    title = f"{found.tensor.replace('_', ' ')}: {chosen}"
    whose = facts([("experiment", code(found.experiment_id))])
    if not chosen or not found.steps.size:
        return card(title, (found.status,), whose, text("Nothing was recorded in these iterations"))
    matrix = np.abs(found.matrix(chosen))
    scale = scale_of(matrix)
    rows = [
        (
            layer.name,
            " × ".join(map(str, layer.shape)),
            *(number(float(value)) for value in (values[0], _mean(values), values[-1])),
            Markup(f'<span style="font-family:monospace;white-space:pre">{sparkline(values, _SPARKS, scale)}</span>'),
        )
        for layer, values in zip(found.layers, matrix, strict=True)
    ]
    steps = f"step {found.steps[0]:,}", "mean", f"step {found.steps[-1]:,}"
    others = ", ".join(name for name in statistics if name != chosen)
    caption = f"{found.steps.size:,} points; {scale_caption(scale)}" + (f"; also here: {others}" if others else "")
    below = table(("layer", "shape", *steps, "over these steps"), rows, caption)
    return card(title, (found.status,), whose, below)


def metrics(found: "Metrics") -> str:
    """A row per series: its first value and its last."""
    rows = [(name, number(float(values[0])), number(float(values[-1]))) for name, values in found.values.items()
            if values.size]  # fmt: skip
    for name, values in (("test_loss", found.test_loss), ("test_accuracy", found.test_accuracy)):
        rows += [(name, number(float(values[0])), number(float(values[-1])))] if values.size else []
    parts = facts([("experiment", code(found.experiment_id))]), table(("series", "first", "last"), rows)
    return card(f"Metrics of {found.steps.size:,} points", (found.status,), *parts)


def histograms(found: "Histograms") -> str:
    """A row per layer: what it counts."""
    rows = [
        (layer.name, " × ".join(map(str, layer.shape)), number(layer.edges.size - 1), number(int(layer.counts.sum())),
         number(int(layer.zero.sum())), number(int(layer.nonfinite.sum())))
        for layer in found.layers
    ]  # fmt: skip
    headings = ("layer", "shape", "bins", "elements in bins", "exactly zero", "not finite")
    title = f"Histograms of {found.of}, {found.steps.size:,} points"
    return card(title, (found.status,), facts([("experiment", code(found.experiment_id))]), table(headings, rows))


def _mean(values: np.ndarray[Any, Any]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan
