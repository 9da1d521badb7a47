"""A diagnosis in words: what `gradprobe diagnose` prints, and what the client's document says where it is printed."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from gradprobe.resources import DiagnosisDocument, FindingDocument

#: What a piece of a line is, so that a terminal can set it apart.
Role = Literal["healthy", "undecided", "critical", "warning", "plain", "aside"]
Line = list[tuple[str, Role]]

NOTHING: Final = "–"
_MOST_REMEDIES: Final = 3


def diagnosis(found: "DiagnosisDocument") -> Iterator[Line]:
    """The verdicts, what was not judged, then every finding with its evidence and remedies."""
    yield [(found.verdict.replace("_", " "), role(found.verdict))]
    yield [(f"  {one_line(found.summary)}", "plain")]
    phases = f"at initialization: {found.at_initialization}; in training: {found.in_training}"
    yield [(f"  {phases.replace('_', ' ')}", "aside")]
    for reason in found.silent:
        yield [(f"  not judged: {one_line(reason)}", "aside")]
    for finding in found.findings:
        yield []
        yield from _finding(finding)


def _finding(finding: "FindingDocument") -> Iterator[Line]:
    detail = f", {finding.detail}" if finding.detail else ""
    where = f"  {finding.phase}, cause: {finding.cause}{detail}".replace("_", " ")
    yield [(finding.rule.replace("_", " "), finding.severity), (where, "aside")]
    yield [(f"  {one_line(finding.explanation)}", "plain")]
    numbers = ", ".join(f"{name} {number(value)}" for name, value in finding.evidence.items())
    yield [(f"  {one_line(numbers)}", "aside")]
    for remedy in finding.remedies[:_MOST_REMEDIES]:
        yield [(f"  → {remedy.id.replace('_', ' ')}: {one_line(remedy.reason)}", "plain")]
        yield [(f"    {json.dumps(remedy.patch)}", "aside")]


def text(lines: Iterator[Line]) -> str:
    """The lines where nothing can be set apart."""
    return "\n".join("".join(piece for piece, _ in line) for line in lines)


def role(verdict: str) -> Role:
    """Of a verdict's name: whatever is neither healthy nor undecided is a rule that found something."""
    return "healthy" if verdict == "healthy" else "undecided" if verdict == "undecided" else "critical"


def number(value: Any) -> str:
    """Evidence: a number as people read it; what is none as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NOTHING if value is None else str(value)
    if isinstance(value, int) or value == 0:
        return f"{value:g}"
    return f"{value:.2f}" if 0.01 <= abs(value) < 1000 else amount(value) if value >= 1000 else f"{value:.1e}"


def amount(value: float) -> str:
    """A factor: two significant digits below ten, a grouped integer above, a power of ten where that is long."""
    if value >= 1e9:
        return f"{value:.1e}"
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def one_line(given: str) -> str:
    """The text on one line and without control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in " ".join(given.split()))
