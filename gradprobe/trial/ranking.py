"""What each change did: measured against the plain spec and against random changes, seed by seed."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from gradprobe.diagnosis.findings import HEALTHY
from gradprobe.spec import CLASSES
from gradprobe.trial.design import Change, Design, Document
from gradprobe.trial.intervals import Interval, paired

#: A net has learned whose loss is less than half of a guess's.
LEARNED_LOSS: Final = 0.5 * math.log(CLASSES)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one experiment of the trial came to; None where it did not, or not yet.

    Attributes:
        verdict: of its diagnosis.
        test_accuracy: share of the test set.
        final_loss: nats; infinite where it was not finite.
        delta_ratio: ‖δ₁‖ ÷ ‖δ_N‖ at the first step.
    """

    verdict: str | None
    test_accuracy: float | None
    final_loss: float | None
    delta_ratio: float | None

    @property
    def mended(self) -> bool:
        """Whether it is healthy and has learned."""
        return self.verdict == HEALTHY and self.final_loss is not None and self.final_loss < LEARNED_LOSS


#: By change and seed: of the experiments that ended well.
Outcomes = Mapping[tuple[str, int], Outcome]


@dataclass(frozen=True, slots=True)
class Standing:
    """One change's results.

    Attributes:
        change: which.
        planned, ended: seeds.
        verdicts: how many seeds ended with which.
        means: of `test_accuracy` and `final_loss`; of `delta_ratio` the geometric one.
        effects: paired differences to the plain spec of the same seeds; of `delta_ratio` its natural logarithm's.
        against_control: test accuracy, paired with the mean of all random changes of the same seed.
        enough: whether every seed is healthy and has learned.
    """

    change: Change
    planned: int
    ended: int
    verdicts: dict[str, int]
    means: dict[str, float | None]
    effects: dict[str, Interval | None]
    against_control: Interval | None
    enough: bool

    def document(self) -> Document:
        """As plain JSON."""
        told: Document = asdict(self)
        change: Document = told.pop("change")
        return change | {"size": self.change.size} | told


@dataclass(frozen=True, slots=True)
class Ranking:
    """All changes, best first, and which is enough by itself.

    `enough` is the smallest change (fewest fields, then the larger effect on test accuracy) that is. `control` has the
    mean effect of all random changes, and how many of them would have been enough.
    """

    plain: Standing
    changes: tuple[Standing, ...]
    control: dict[str, Any] = field(default_factory=dict)
    enough: str | None = None
    conclusion: str = ""

    def document(self) -> Document:
        """As plain JSON."""
        return {
            "plain": self.plain.document(),
            "changes": [standing.document() for standing in self.changes],
            "control": self.control,
            "enough": self.enough,
            "conclusion": self.conclusion,
        }


def rank(design: Design, outcomes: Outcomes) -> Ranking:
    """Of what has ended so far; the plain spec and the random changes are of the same seeds as each change."""
    by_arm: dict[str, list[Change]] = {}
    for change in design.changes:
        by_arm.setdefault(change.arm, []).append(change)
    random = _control_accuracies(by_arm.get("control", ()), design.seeds, outcomes)
    standings = [_standing(change, design.seeds, outcomes, random) for change in design.changes]
    plain = next(one for one in standings if one.change.arm == "plain")
    rest = sorted((one for one in standings if one.change.arm != "plain"), key=_order)
    enough = smallest_enough(rest)
    control = _control(rest, design.seeds, outcomes, random)
    words = _conclusion(design, plain, rest, enough, control)
    return Ranking(plain, tuple(rest), control, enough.change.id if enough else None, words)


def smallest_enough(standings: Iterable[Standing]) -> Standing | None:
    """Of the remedies and combinations that are enough the one of fewest fields, then of the larger effect."""
    proposed = [one for one in standings if one.enough and one.change.arm in ("remedy", "combination")]
    return min(proposed, key=lambda one: (one.change.size, _order(one)), default=None)


def _standing(change: Change, seeds: Sequence[int], outcomes: Outcomes, random: Mapping[int, float]) -> Standing:
    mine = {seed: outcomes[change.id, seed] for seed in seeds if (change.id, seed) in outcomes}
    verdicts: dict[str, int] = {}
    for outcome in mine.values():
        if outcome.verdict is not None:
            verdicts[outcome.verdict] = verdicts.get(outcome.verdict, 0) + 1
    effects = {} if change.arm == "plain" else {name: _effect(mine, outcomes, of) for name, of in _MEASURES.items()}
    means = {name: _mean([of(outcome) for outcome in mine.values()]) for name, of in _MEASURES.items()}
    logarithm = means.pop("log_delta_ratio")
    means["delta_ratio"] = None if logarithm is None else math.exp(logarithm)
    against = _against(mine, random) if change.arm in ("remedy", "combination") else None
    enough = len(mine) == len(seeds) and all(outcome.mended for outcome in mine.values())
    return Standing(change, len(seeds), len(mine), verdicts, means, effects, against, enough)


def _against(mine: Mapping[int, Outcome], random: Mapping[int, float]) -> Interval | None:
    accuracies = {seed: outcome.test_accuracy for seed, outcome in mine.items() if seed in random}
    return paired([value - random[seed] for seed, value in accuracies.items() if value is not None])


def _log_ratio(outcome: Outcome) -> float | None:
    ratio = outcome.delta_ratio
    return math.log(ratio) if ratio is not None and ratio > 0.0 and math.isfinite(ratio) else None


_MEASURES: Final[dict[str, Callable[[Outcome], float | None]]] = {
    "test_accuracy": lambda outcome: outcome.test_accuracy,
    "final_loss": lambda outcome: outcome.final_loss,
    "log_delta_ratio": _log_ratio,
}


def _effect(mine: Mapping[int, Outcome], outcomes: Outcomes, of: Callable[[Outcome], float | None]) -> Interval | None:
    differences = []
    for seed, outcome in mine.items():
        plain = outcomes.get(("plain", seed))
        here, there = of(outcome), of(plain) if plain is not None else None
        if here is not None and there is not None and math.isfinite(here - there):
            differences.append(here - there)
    return paired(differences)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    mean = math.fsum(known) / len(known) if known else None
    return mean if mean is not None and math.isfinite(mean) else None


def _control_accuracies(changes: Sequence[Change], seeds: Sequence[int], outcomes: Outcomes) -> dict[int, float]:
    """Of each seed the mean test accuracy over all random changes, where all of them have ended."""
    found = {}
    for seed in seeds:
        values = [outcomes[change.id, seed].test_accuracy for change in changes if (change.id, seed) in outcomes]
        known = [value for value in values if value is not None]
        if known and len(known) == len(changes):
            found[seed] = math.fsum(known) / len(known)
    return found


def _control(
    standings: Sequence[Standing], seeds: Sequence[int], outcomes: Outcomes, random: Mapping[int, float]
) -> dict[str, Any]:
    of_arm = [one for one in standings if one.change.arm == "control"]
    differences = []
    for seed in seeds:
        plain = outcomes.get(("plain", seed))
        if seed in random and plain is not None and plain.test_accuracy is not None:
            differences.append(random[seed] - plain.test_accuracy)
    effect = paired(differences)
    return {
        "changes": len(of_arm),
        "enough": sum(one.enough for one in of_arm),
        "test_accuracy": effect.document() if effect else None,
    }


def _order(standing: Standing) -> tuple[float, float, str]:
    """Larger gains of test accuracy first, then larger falls of the loss; what is not known last."""
    accuracy, loss = standing.effects.get("test_accuracy"), standing.effects.get("final_loss")
    return (-accuracy.mean if accuracy else math.inf, loss.mean if loss else math.inf, standing.change.id)


def _conclusion(
    design: Design, plain: Standing, rest: Sequence[Standing], enough: Standing | None, control: Mapping[str, Any]
) -> str:
    random = control["test_accuracy"]
    beside = f" Random changes of the same fields: {_points(random['mean'])} on average." if random else ""
    if enough is not None:
        effect = enough.effects["test_accuracy"]
        gain = f", test accuracy {_points(effect.mean)}{_bounds(effect)}" if effect else ""
        words = enough.change.id.replace("_", " ").replace("+", " and ")
        alone = "together are enough" if enough.change.arm == "combination" else "alone is enough"
        return f"{words.capitalize()} {alone}: healthy and learning on all {len(design.seeds)} seeds{gain}.{beside}"
    tried = [one for one in rest if one.change.arm in ("remedy", "combination") and one.ended == one.planned]
    if not tried or plain.ended < plain.planned:
        return "Too little has ended to say."
    best = tried[0]
    effect = best.effects["test_accuracy"]
    gain = f", test accuracy {_points(effect.mean)}{_bounds(effect)}" if effect else ""
    return f"None is enough by itself on all {len(design.seeds)} seeds; the best is {best.change.id}{gain}.{beside}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f} points"


def _bounds(effect: Interval) -> str:
    if effect.low is None or effect.high is None:
        return ""
    return f" (95 % interval {100 * effect.low:+.1f} to {100 * effect.high:+.1f})"
