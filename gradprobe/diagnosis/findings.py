"""What a diagnosis consists of."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Phase = Literal["at_initialization", "in_training"]
Severity = Literal["warning", "critical"]
Cause = Literal[
    "weight_scale",
    "activation_derivative",
    "normalization",
    "skip_connection",
    "width",
    "symmetry",
    "learning_rate_too_high",
    "learning_rate_too_low",
    "data",
    "unknown",
]
HEALTHY = "healthy"
#: Too little was recorded to say.
UNDECIDED = "undecided"


def called(layer: str) -> str:
    """A layer as a sentence names it: in a loop of somebody's own it may be called by a mere number."""
    return f"layer {layer}" if layer.isdecimal() else layer


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change of the spec: an RFC 7396 merge patch, why, and what theory expects of it."""

    id: str
    patch: dict[str, Any]
    reason: str
    expected: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"id": self.id, "patch": self.patch, "reason": self.reason, "expected": plain(self.expected)}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong.

    Attributes:
        rule: which rule found it.
        phase: whether of the network as it starts, or of its training.
        severity: `critical` where it keeps the network from learning by itself.
        cause: what carries it; `detail` says it closer.
        layers: of the network, those concerned, input side first; empty for the run as a whole.
        layer_severity: e-folds, shares or counts by layer, in the rule's own measure.
        first_step, last_step: recorded steps between which it holds; `ongoing`: still at the last one recorded.
        samples: recorded steps that the verdict rests on.
        evidence: the numbers, and the thresholds that they crossed.
        explanation: one sentence.
    """

    rule: str
    phase: Phase
    severity: Severity
    cause: Cause
    first_step: int
    last_step: int
    ongoing: bool
    samples: int
    explanation: str
    detail: str = ""
    layers: tuple[str, ...] = ()
    layer_severity: Mapping[str, float] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    remedies: tuple[Remedy, ...] = ()
    version: int = 1

    def with_remedies(self, remedies: tuple[Remedy, ...]) -> "Finding":
        """The same finding, with what to do."""
        return replace(self, remedies=remedies)

    def document(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "rule": self.rule,
            "version": self.version,
            "phase": self.phase,
            "severity": self.severity,
            "cause": self.cause,
            "detail": self.detail,
            "layers": list(self.layers),
            "layer_severity": plain(self.layer_severity),
            "first_step": self.first_step,
            "last_step": self.last_step,
            "ongoing": self.ongoing,
            "samples": self.samples,
            "evidence": plain(self.evidence),
            "explanation": self.explanation,
            "remedies": [remedy.document() for remedy in self.remedies],
        }


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, weightiest first, and the verdicts: each the first finding's rule, `healthy`, or `undecided`."""

    verdict: str
    at_initialization: str
    in_training: str
    cause: str | None
    summary: str
    findings: tuple[Finding, ...]
    attribution: dict[str, Any] | None
    failed_rules: tuple[str, ...] = ()
    #: Which rules had nothing to go by, and why, in sentences.
    silent: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "verdict": self.verdict,
            "at_initialization": self.at_initialization,
            "in_training": self.in_training,
            "cause": self.cause,
            "summary": self.summary,
            "findings": [finding.document() for finding in self.findings],
            "attribution": plain(self.attribution),
            "failed_rules": list(self.failed_rules),
            "silent": list(self.silent),
        }


def plain(value: Any) -> Any:
    """JSON's own types: NumPy's numbers as Python's, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
