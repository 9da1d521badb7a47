"""Our training with everything measured at every step and stored, against a tutorial's script that measures nothing."""

from functools import partial

import torch

from benchmarks.results import Figure, Goal, Result, Row, Table, command
from benchmarks.timing import Timed, Times, in_rounds
from benchmarks.training import dataset, plain_network, plain_step, recorded, script_step, stored, timed, watched
from gradprobe.spec import Spec
from worker.loop import Pace

SCRIPT = "script: DataLoader, nn.Sequential, default Adam; measures nothing"
_SPEED = "times the script's speed"
_CPU = torch.device("cpu")


def run(quick: bool) -> Result:
    """The classic network, on the CPU."""
    rounds, seconds, name = (1, 0.01, "synthetic") if quick else (15, 1.0, "mnist")
    pace = Pace(0.05, 0.02) if quick else Pace()
    data, everything = dataset(name), recorded(Spec(), 1, 1)

    def script() -> Timed:
        return timed(script_step(Spec(), data), seconds, _CPU)

    def plain() -> Timed:
        return timed(plain_step(plain_network(Spec(), _CPU), Spec(), data, _CPU), seconds, _CPU)

    def ours(spec: Spec) -> Timed:
        with stored(spec) as sink:
            return watched(spec, data, seconds, _CPU, sink, pace)

    times = in_rounds(
        {
            SCRIPT: script,
            "ours: everything at every step, stored in SQLite": partial(ours, everything),
            "ours: the default recording, stored in SQLite": partial(ours, recorded(Spec(), 1, 25)),
            "fastest plain loop; measures nothing": plain,
        },
        rounds,
    )
    rows = [
        Row(subject, _figures(found, times[SCRIPT]), [Goal(_SPEED, ">", 1.0)] if subject.startswith("ours") else ())
        for subject, found in times.items()
    ]
    return Result("loop", [Table("classic: 784–10×5–10 sigmoid, batch 30, cpu, one thread", rows)])


def _figures(found: Times, base: Times) -> dict[str, Figure]:
    return {
        "iterations/s, median": 1 / found.wall,
        "iterations/s, most": 1 / found.least,
        "µs, median": found.wall * 1e6,
        _SPEED: 1 / found.over(base),
        "by processor time": 1 / found.processor_over(base),
    }


if __name__ == "__main__":
    command(run)
