"""What the rules, and other tools' rules, say of experiments whose faults are known: `make bench-faults`."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import attrgetter
from statistics import median

from benchmarks.faults.cases import REPORTED, Case, cases
from benchmarks.faults.drawn import drawn
from benchmarks.faults.runs import Run, Runs
from benchmarks.faults.truth import Truth, truth_of
from benchmarks.results import Figure, Goal, Result, Row, Table, command
from gradprobe.diagnosis import Diagnosis, Measurements, diagnose
from gradprobe.diagnosis.presets import PRESETS, Preset, judge
from gradprobe.settings import Settings
from gradprobe.spec import Spec

#: The rules were corrected once after a look at 500 others, drawn from seed 50,000.
_DRAWN, _DRAWN_SEED = 500, 60_000
_QUICK = 3
_TIMES = 21


@dataclass(frozen=True, slots=True)
class Judged:
    """One experiment: what is true of it, and what each set of rules says."""

    case: Case
    truth: Truth
    ours: Diagnosis
    presets: dict[Preset, Diagnosis]


def run(quick: bool) -> Result:
    """The labelled suite, then healthy experiments drawn at random."""
    runs = Runs(Settings().data_directory / "faults")
    labelled: Iterable[Case] = cases(REPORTED)
    random: Iterable[Case] = drawn(_DRAWN, _DRAWN_SEED)
    if quick:
        labelled = [case for case in labelled if case.name.startswith("relu-classic/adam")][:_QUICK]
        random = islice(random, 1)
    judged, healthy = [_judge(case, runs) for case in labelled], [_judge(case, runs) for case in random]
    held = [one for one in judged if one.truth.holds]
    tables = [
        _confusion(f"labelled suite: {len(held)} of {len(judged)} labels confirmed", held),
        _by_fault(held),
        _confusion("healthy ones drawn at random", [one for one in healthy if one.truth.holds]),
        _cost(runs, 100 if quick else 2500),
    ]
    left_out = [one for one in (*judged, *healthy) if not one.truth.holds]
    return Result("faults", [*tables, _left_out(left_out)] if left_out else tables)


def _judge(case: Case, runs: Runs) -> Judged:
    truth, found = truth_of(case, runs), runs.of(case.spec)
    ours = diagnose(_measurements(found))
    return Judged(case, truth, ours, {name: judge(_measurements(found), name) for name in PRESETS})


def _measurements(found: Run) -> Measurements:
    return Measurements(found.spec, found.blocks)


def _confusion(title: str, judged: Sequence[Judged]) -> Table:
    rows = [confusion_row("gradprobe", judged, attrgetter("ours"), [_FALSE_ALARMS, _DETECTED, _RIGHT])]
    rows += [confusion_row(f"preset {name}", judged, partial(_as_tool, name), ()) for name in PRESETS]
    return Table(title, rows)


def _as_tool(name: Preset, one: Judged) -> Diagnosis:
    return one.presets[name]


_FALSE_ALARMS = Goal("false alarms, %", "≤", 0.0, "%")
_DETECTED = Goal("detected, %", "≥", 100.0, "%")
_RIGHT = Goal("right cause, %", "≥", 98.0, "%")
_COST = Goal("ms, median", "≤", 50.0, "ms")


def confusion_row(
    subject: str, judged: Sequence[Judged], of: Callable[[Judged], Diagnosis], goals: Sequence[Goal]
) -> Row:
    healthy = [of(one) for one in judged if one.case.cause is None]
    faulty = [(of(one), one.case.cause) for one in judged if one.case.cause is not None]
    detected = [(found, cause) for found, cause in faulty if found.verdict != "healthy"]
    figures: dict[str, Figure] = {
        "healthy": len(healthy),
        "false alarms": sum(found.verdict != "healthy" for found in healthy),
        "false alarms, %": _percent(sum(found.verdict != "healthy" for found in healthy), len(healthy)),
        "faulty": len(faulty),
        "detected": len(detected),
        "detected, %": _percent(len(detected), len(faulty)),
    }
    if goals:
        right = sum(found.cause == cause for found, cause in faulty)
        figures |= {"right cause": right, "right cause, %": _percent(right, len(faulty))}
    return Row(subject, figures, [goal for goal in goals if figures[goal.figure] is not None])


def _percent(part: int, whole: int) -> float | None:
    return 100.0 * part / whole if whole else None


def _by_fault(judged: Sequence[Judged]) -> Table:
    rows = []
    for fault in dict.fromkeys(one.case.fault for one in judged if one.case.fault):
        some = [one for one in judged if one.case.fault == fault]
        verdicts = Counter(one.ours.verdict for one in some)
        figures: dict[str, Figure] = {
            "cause": some[0].case.cause,
            "experiments": len(some),
            "δ beyond the limit": sum(not abs(one.truth.decay) <= 6.0 for one in some),
            "learn all the same": sum(one.truth.learns for one in some),
            "detected": sum(one.ours.verdict != "healthy" for one in some),
            "right cause": sum(one.ours.cause == one.case.cause for one in some),
            **{f"by {name}": sum(one.presets[name].verdict != "healthy" for one in some) for name in PRESETS},
        }
        rows.append(Row(fault, figures, note=", ".join(f"{name} {count}" for name, count in verdicts.most_common())))
    return Table("by fault", rows)


def _cost(runs: Runs, iterations: int) -> Table:
    """The classic network in full: its blocks are decoded already, as in the worker and in the service's cache."""
    training = {"iterations": iterations, "device": "cpu"}
    found = runs.of(Spec.model_validate({"training": training}))
    seconds = [_timed(found) for _ in range(_TIMES)]
    figures: dict[str, Figure] = {"ms, first": 1e3 * seconds[0], "ms, median": 1e3 * median(seconds)}
    return Table("cost of one diagnosis", [Row(f"all rules over {iterations:,} steps", figures, [_COST])])


def _timed(found: Run) -> float:
    began = time.perf_counter()
    diagnose(_measurements(found))
    return time.perf_counter() - began


def _left_out(judged: Sequence[Judged]) -> Table:
    """Labels that are not confirmed: nothing is counted for or against any rule there."""
    rows = [
        Row(one.case.name, {"label": one.case.cause or "healthy", "ours": one.ours.verdict, "ln δ": one.truth.decay,
                            "learns": str(one.truth.learns)})
        for one in judged
    ]  # fmt: skip
    return Table("left out: labels that the reference does not confirm", rows)


if __name__ == "__main__":
    command(run)
