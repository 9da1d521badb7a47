"""What a GPU brings: a stack of many members, and a network by itself, against the eager bare loop on the same GPU."""

from dataclasses import replace
from functools import partial

import torch

from benchmarks.results import Goal, Row, Table
from benchmarks.scale.stacks import FASTER, PLAIN, QUICK, Effort, rows_of, stacked
from benchmarks.timing import Timed, in_rounds
from benchmarks.training import dataset, plain_network, plain_step, recorded, timed, watched
from gradprobe.spec import Spec
from gradprobe.stacking import RECORD_MEBIBYTES
from worker.loop import Pace
from worker.stack.device.data import on_device

_MEMBERS = (1024, 256, 64)
EFFORT = Effort(members=_MEMBERS, pace=Pace(memory_mebibytes=RECORD_MEBIBYTES * _MEMBERS[0]))
TITLE = "on a GPU"


def tables(quick: bool) -> list[Table]:
    """What was found on this machine's GPU, or that there is none."""
    if not torch.cuda.is_available():
        return [Table(TITLE, [Row("stacks and single networks on CUDA", note="no GPU here")])]
    device = torch.device("cuda")
    return measure(QUICK if quick else EFFORT, device, torch.cuda.get_device_name(device))


def measure(effort: Effort, device: torch.device, name: str) -> list[Table]:
    """The classic net on a device of that name: stacks by what is recorded and by size, then one network by itself."""
    data, most = on_device(dataset(effort.dataset), device), effort.members[0]
    every_10th, everything = recorded(Spec(), 10, 10), recorded(Spec(), 1, 1)
    subjects = {
        PLAIN: partial(plain, effort, device),
        f"{most} members, everything, every 10th step": partial(stacked, every_10th, most, False, effort, data),
        f"{most} members, everything, every step": partial(stacked, everything, most, False, effort, data),
        **{
            f"{members} members, everything, every 10th step": partial(
                stacked, every_10th, members, False, effort, data
            )
            for members in effort.members[1:]
        },
    }
    goals = {f"{most} members, everything, every 10th step": [Goal(FASTER, "≥", 1000.0)]}
    stacks = rows_of(in_rounds(subjects, effort.rounds), goals)
    everything_of_it = "everything, every step"
    by_itself = {PLAIN: partial(plain, effort, device), everything_of_it: partial(alone, effort, device)}
    single = rows_of(in_rounds(by_itself, effort.rounds), {everything_of_it: [Goal(FASTER, "≥", 5.0)]})
    return [
        Table(f"{TITLE}, {name}: classic nets of their own seeds, against the eager bare loop there", stacks),
        Table(f"{TITLE}, {name}: classic net by itself, against the eager bare loop there", single),
    ]


def plain(effort: Effort, device: torch.device) -> Timed:
    """The fastest plain loop, eager, which measures nothing."""
    spec = Spec()
    step = plain_step(plain_network(spec, device), spec, dataset(effort.dataset), device)
    return timed(step, effort.seconds, device)


def alone(effort: Effort, device: torch.device) -> Timed:
    """The worker's own loop with everything measured at every step."""
    pace = replace(effort.pace, memory_mebibytes=Pace().memory_mebibytes)
    return watched(recorded(Spec(), 1, 1), dataset(effort.dataset), effort.seconds, device, pace=pace)
