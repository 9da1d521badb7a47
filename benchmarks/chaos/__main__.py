"""N experiments under a random, seeded schedule of faults, then the audit: `python -m benchmarks.chaos --help`."""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.chaos.audit import Findings, attempts, audit, references, unended
from benchmarks.chaos.faults import Fault, of
from benchmarks.chaos.specs import specs
from benchmarks.chaos.submission import Submission
from benchmarks.chaos.system import System, system
from gradprobe.errors import DatabaseUnavailable

#: Experiments that wait or run beyond those that the faults so far have paid for.
_AHEAD = 8
_LONGEST_CALM = 2.0
_LONGEST_WAIT_SECONDS = 60.0
#: After the last fault, everything that was accepted must end within this.
_PATIENCE_SECONDS = 900.0


@dataclass
class Report:
    """What a chaos run came to."""

    database: str
    seed: int
    experiments: int
    faults: dict[str, int] = field(default_factory=dict)
    attempts: int = 0
    requests_tried_again: int = 0
    seconds: float = 0.0
    findings: Findings = field(default_factory=Findings)


@dataclass(frozen=True)
class Plan:
    """How much of what, and in which order: the seed decides."""

    database: str
    seed: int
    experiments: int
    faults: int
    iterations: int
    only: str = ""

    def schedule(self) -> list[Fault]:
        """Every kind of fault as often as any other, shuffled; `only` may name some."""
        wanted = self.only.split(";")
        kinds = [fault for fault in of(self.database) if any(name in fault.name for name in wanted)]
        if not kinds:
            raise SystemExit(f"no fault of {self.database} on this machine has {self.only!r} in its name")
        drawn = [kinds[number % len(kinds)] for number in range(self.faults)]
        random.Random(self.seed).shuffle(drawn)  # noqa: S311 - no secret
        return drawn

    def kinds(self) -> list[str]:
        """Which kind of experiment is posted, one after the other."""
        return random.Random(self.seed).choices(list(specs(self.iterations)), k=self.experiments)  # noqa: S311 - no secret


def run(plan: Plan, console: Console) -> Report:
    """The whole of it; everything it leaves behind is removed."""
    report = Report(plan.database, plan.seed, plan.experiments)
    began = time.monotonic()
    documents = {kind: document for kind, document in specs(plan.iterations).items() if kind in plan.kinds()}
    with tempfile.TemporaryDirectory(prefix="gradprobe-chaos-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o711)  # under root PostgreSQL runs as another user
        columns = TextColumn("{task.description:42}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with (
            Progress(*columns, console=console) as progress,
            system(Path(directory) / "system", plan.database) as running,
        ):
            task = progress.add_task("undisturbed", total=len(documents))
            settings = running.stack.settings
            expected = references(Path(directory) / "alone", documents, settings, lambda: progress.advance(task))
            accepted = _disturb(running, plan, documents, report, progress)
            report.attempts = attempts(running.database)
            report.findings = audit(running.database, accepted, expected)
    report.seconds = time.monotonic() - began
    return report


def _disturb(
    running: System,
    plan: Plan,
    documents: dict[str, dict[str, Any]],
    report: Report,
    progress: Progress,
) -> dict[str, str]:
    """Submit, and do harm meanwhile. Faults start processes, which end with the thread that started them: this one."""
    chance, schedule = random.Random(plan.seed), plan.schedule()  # noqa: S311 - no secret
    done: Counter[str] = Counter()

    def allowed() -> int:
        return _AHEAD + (plan.experiments * done.total()) // max(1, len(schedule))

    submission = Submission(running.stack.url, documents, plan.kinds(), allowed)
    submission.start()
    harm = progress.add_task("faults", total=len(schedule))
    ends = progress.add_task("experiments ended", total=plan.experiments)

    def look() -> int:
        if submission.failure is not None:
            raise submission.failure
        try:
            left = unended(running.database, submission.accepted.copy())
        except DatabaseUnavailable:
            return plan.experiments
        progress.update(ends, completed=len(submission.accepted) - left)
        return left + plan.experiments - len(submission.accepted)

    for fault in schedule:
        time.sleep(chance.uniform(0.0, _LONGEST_CALM))
        progress.update(harm, description=fault.name)
        fault.do(running, chance)
        done[fault.name] += 1
        progress.advance(harm)
        # Harm is spread over all experiments: where they are slow, faults wait for them.
        due = plan.experiments * done.total() // len(schedule) - _AHEAD
        calm = time.monotonic() + _LONGEST_WAIT_SECONDS
        while plan.experiments - look() < due and time.monotonic() < calm:
            time.sleep(0.2)
    progress.update(harm, description="faults")
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while look() and time.monotonic() < deadline:
        time.sleep(0.5)
    report.faults, report.requests_tried_again = dict(done), submission.refused
    return submission.accepted.copy()


def show(report: Report, console: Console) -> None:
    """As tables."""
    table = Table(
        title=f"{report.experiments} experiments on {report.database}, seed {report.seed}", title_justify="left"
    )
    table.add_column("fault")
    table.add_column("times", justify="right")
    for name, times in sorted(report.faults.items()):
        table.add_row(name, str(times))
    console.print(table)
    console.print(
        f"{sum(report.faults.values())} faults, {report.attempts} attempts for {report.experiments} experiments, "
        f"{report.requests_tried_again} requests tried again, {report.seconds:.0f} s"
    )
    for kind, found in asdict(report.findings).items():
        console.print(f"{kind:12} {len(found)}", style="red" if found else "green")
        for line in found[:10]:
            console.print(f"    {line}", markup=False)


def main() -> None:
    """The command line; exit code 1 where the audit finds anything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--experiments", type=int, default=200)
    parser.add_argument("--faults", type=int, default=104)
    parser.add_argument("--seed", type=int, default=1, help="of the schedule and of what is submitted")
    parser.add_argument("--iterations", type=int, default=6000, help="of each experiment; a tenth for images")
    parser.add_argument("--only", default="", metavar="NAMES", help="only these faults: parts of names, between ;")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit("stopped"))  # in order: everything that was started is ended
    console = Console(stderr=True)
    plan = Plan(
        arguments.database,
        arguments.seed,
        arguments.experiments,
        arguments.faults,
        arguments.iterations,
        arguments.only,
    )
    report = run(plan, console)
    show(report, Console())
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if report.findings.count else 0)


if __name__ == "__main__":
    main()
