"""Are faulty experiments mended by what the diagnosis proposes, and would random changes have done as well?

`python -m benchmarks.faults.mending --cases 24 --seeds 1`: of the labelled suite's faulty experiments, evenly spread
over its faults, those that are not healthy and learning as they are. Each is tried as `POST …/remedies` tries it, by
the same design and ranking, without a server.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.faults.cases import REPORTED, Case, cases
from benchmarks.faults.runs import Run, Runs
from gradprobe.diagnosis import VERSION, Diagnosis, Measurements, diagnose
from gradprobe.diagnosis.summary import summarize
from gradprobe.settings import Settings
from gradprobe.trial.control import controls
from gradprobe.trial.design import PLAIN, Change, Design, combined, remedies_in, seeds_from, spec_of
from gradprobe.trial.ranking import Outcome, Ranking, rank


@dataclass(frozen=True, slots=True)
class Tried:
    """One faulty experiment: how many of its changes were enough, by themselves and in pairs."""

    case: Case
    remedies: int
    remedies_enough: int
    combination: bool
    controls: int
    controls_enough: int

    @property
    def mended(self) -> bool:
        """Whether something that was proposed was enough."""
        return bool(self.remedies_enough) or self.combination


def sample(number: int) -> list[Case]:
    """Faulty ones, evenly spread over the suite's order, which is by fault."""
    faulty = [case for case in cases(REPORTED) if case.cause is not None]
    return [faulty[math.floor(index * len(faulty) / number)] for index in range(min(number, len(faulty)))]


def attempt(case: Case, runs: Runs, seeds: int) -> Tried | None:
    """Try a case's remedies; None where the plain spec is mended already, so that there is nothing to mend."""
    run = runs.of(case.spec)
    found = _diagnosed(run)
    if _outcome(run, found).mended:
        return None
    changes = [Change("remedy", remedy.id, remedy.patch, remedy.reason) for remedy in remedies_in(found)]
    random = controls(case.spec, changes, case.name, lambda spec: spec.network.parameter_count < 2_000_000)
    design = Design(found.verdict, seeds_from(case.spec.training.seed, seeds), (PLAIN, *changes, *random))
    base = case.spec.model_dump(mode="json")
    outcomes = dict(_outcomes(base, design.seeds, design.changes, runs))
    ranking = rank(design, outcomes)
    together = False
    if ranking.enough is None:
        pairs = combined(base, [one.change for one in ranking.changes if one.change.arm == "remedy"])
        wider = Design(design.rule, design.seeds, (*design.changes, *pairs))
        together = rank(wider, outcomes | dict(_outcomes(base, design.seeds, pairs, runs))).enough is not None
    return Tried(case, len(changes), _enough(ranking, "remedy"), together, len(random), _enough(ranking, "control"))


def _outcomes(
    base: dict[str, object], seeds: Sequence[int], changes: Sequence[Change], runs: Runs
) -> Iterator[tuple[tuple[str, int], Outcome]]:
    for seed in seeds:
        for change in changes:
            run = runs.of(spec_of(base, change, seed))
            yield (change.id, seed), _outcome(run, _diagnosed(run))


def _enough(ranking: Ranking, arm: str) -> int:
    return sum(one.enough for one in ranking.changes if one.change.arm == arm)


def _diagnosed(run: Run) -> Diagnosis:
    return diagnose(Measurements(run.spec, run.blocks))


def _outcome(run: Run, found: Diagnosis) -> Outcome:
    ratio = summarize(Measurements(run.spec, run.blocks), found, VERSION)["delta_ratio_initial"]
    loss = run.outcome["final_loss"]
    loss = loss if math.isfinite(loss) else math.inf
    return Outcome(None if found.failed_rules else found.verdict, run.outcome["test_accuracy"], loss, ratio)


def report(tried: Sequence[Tried]) -> str:
    """The figures, and every case that was not mended."""
    number = len(tried)
    mended = sum(one.mended for one in tried)
    single = sum(bool(one.remedies_enough) for one in tried)
    lucky = sum(bool(one.controls_enough) for one in tried)
    remedies, drawn = sum(one.remedies for one in tried), sum(one.controls for one in tried)
    lines = [
        f"faulty experiments: {number}",
        f"mended by what one POST tries: {mended} of {number} ({single} by a single remedy)",
        f"at least one random change was enough: {lucky} of {number}",
        f"of single remedies enough: {sum(one.remedies_enough for one in tried)} of {remedies}",
        f"of random changes enough: {sum(one.controls_enough for one in tried)} of {drawn}",
    ]
    lines += [f"not mended: {one.case.name} ({one.case.cause}), {one.remedies} remedies"
              for one in tried if not one.mended]  # fmt: skip
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Try them, as many as the time allows, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults.mending", description=__doc__)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no case after so long")
    given = parser.parse_args(arguments)
    runs, began, tried, fine, late = Runs(Settings().data_directory / "mending"), time.monotonic(), [], 0, 0
    for case in sample(given.cases):
        if time.monotonic() - began > 60.0 * given.minutes:
            late += 1
            continue
        one = attempt(case, runs, given.seeds)
        fine += one is None
        tried += [one] if one is not None else []
    sys.stdout.write(f"{report(tried)}\nhealthy and learning as they are: {fine}; not begun: {late}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
