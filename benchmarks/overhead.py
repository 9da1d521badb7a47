"""What measuring costs a training: microseconds an iteration against the fastest plain loop, ours and the peers'."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from benchmarks import memory
from benchmarks.loggers import tensorboard_step, wandb_step
from benchmarks.peers import rows_of
from benchmarks.results import Figure, Goal, Result, Row, Table, command
from benchmarks.timing import Timed, Times, in_rounds
from benchmarks.training import (
    DEFAULT_PACE,
    NEVER,
    Step,
    dataset,
    forget,
    hooked,
    losses_after,
    own_network,
    plain_network,
    plain_step,
    recorded,
    stored,
    timed,
    watched,
)
from gradprobe.spec import Spec
from worker.data import Dataset
from worker.loop import Pace

Network = Callable[[Spec, torch.device], nn.Module]
Logger = Callable[[Spec, Dataset, torch.device], AbstractContextManager[Step]]

PLAIN, OWN, UNMEASURED = "plain loop", "own network in the plain loop", "our loop, nothing recorded"
HOOKED = "hooks in the plain loop, everything, every step"
_RATIO, _UNMEASURED_RATIO = "ratio", "to our loop unmeasured"
_MEMORY = "MiB"
_PEERS: dict[str, Logger] = {"TensorBoard SummaryWriter": tensorboard_step, "wandb.watch, offline": wandb_step}


@dataclass(frozen=True, slots=True)
class Net:
    """A network, and how much slower measuring may make its training."""

    title: str
    spec: Spec
    every_step: float
    every_tenth: float | None = None


NETS = {
    "classic": Net("classic: 784–10×5–10 sigmoid, batch 30", Spec(), 1.10, 1.02),
    "wide": Net(
        "wide: 784–512×5–10 sigmoid, batch 128",
        Spec.model_validate({"network": {"width": 512}, "training": {"batch_size": 128}}),
        1.15,
    ),
    # Under sigmoid the gradients of so many layers are subnormal numbers, which slow the plain loop itself.
    "deep": Net(
        "deep: 100 layers of 64, ReLU, He, batch 30",
        Spec.model_validate(
            {"network": {"depth": 100, "width": 64, "activation": "relu", "initialization": {"name": "he_normal"}}}
        ),
        1.25,
    ),
}
MEMORY_GOAL = Goal(_MEMORY, "≤", 64.0, "MiB")


@dataclass(frozen=True, slots=True)
class Effort:
    """How long, and on what."""

    rounds: int = 15
    seconds: float = 1.0
    peer_rounds: int = 3
    peer_seconds: float = 3.0
    same_after: int = 200
    memory_iterations: int = 300
    dataset: str = "mnist"
    pace: Pace = DEFAULT_PACE


QUICK = Effort(1, 0.01, 1, 0.01, 5, 20, "synthetic", Pace(0.05, 0.02))


def run(quick: bool) -> Result:
    """All networks, on the CPU and on a GPU where there is one."""
    effort = QUICK if quick else Effort()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    tables = [measure(net, torch.device(device), effort) for device in devices for net in NETS.values()]
    peers = [compare(net, effort) for net in NETS.values()]
    return Result("overhead", [*tables, *peers, remember(effort)])


def measure(net: Net, device: torch.device, effort: Effort) -> Table:
    """One network: the plain loop as it is, over the worker's network and with hooks; and the worker's own loop."""
    every, tenth = _goals(net.every_step), _goals(net.every_tenth)
    kinds: dict[str, tuple[Spec, list[Goal], bool]] = {
        UNMEASURED: (recorded(net.spec, NEVER, NEVER), [], False),
        "everything, every step": (recorded(net.spec, 1, 1), every, False),
        "the same, stored in SQLite": (recorded(net.spec, 1, 1), every, True),
        "every step, histograms every 25th": (recorded(net.spec, 1, 25), every, False),
        "everything, every 10th step": (recorded(net.spec, 10, 10), tenth, False),
    }
    subjects: dict[str, Callable[[], Timed]] = {
        PLAIN: partial(_plain, plain_network, net.spec, device, effort),
        OWN: partial(_plain, own_network, net.spec, device, effort),
        HOOKED: partial(hooked, net.spec, dataset(effort.dataset), effort.seconds, device),
    }
    for name, (spec, _, kept) in kinds.items():
        subjects[name] = partial(_watched, spec, kept, device, effort)
    times = in_rounds(subjects, effort.rounds)
    rows = [
        Row(
            name,
            _figures(found, times[PLAIN]) | {_UNMEASURED_RATIO: found.over(times[UNMEASURED])},
            kinds[name][1] if name in kinds else (),
        )
        for name, found in times.items()
    ]
    return Table(f"{net.title}, {device.type}", [*rows, _same_training(net, device, effort)])


def compare(net: Net, effort: Effort) -> Table:
    """One network, on the CPU: the plain loop with each peer's logger in it, for fewer iterations."""
    data, device = dataset(effort.dataset), torch.device("cpu")

    def logged(open_step: Logger) -> Timed:
        with open_step(net.spec, data, device) as step:
            return timed(step, effort.peer_seconds, device)

    def rows(name: str, open_step: Logger) -> list[Row]:
        subjects = {
            PLAIN: partial(_plain, plain_network, net.spec, device, effort),
            "ours, everything, every step": partial(_watched, recorded(net.spec, 1, 1), False, device, effort),
            name: partial(logged, open_step),
        }
        times = in_rounds(subjects, effort.peer_rounds)
        base = times.pop(PLAIN)
        return [Row(subject, _figures(found, base)) for subject, found in times.items()]

    found = [row for name, step in _PEERS.items() for row in rows_of(name, partial(rows, name, step))]
    return Table(f"{net.title}, cpu: the peers, each beside ours in the same rounds", found)


def remember(effort: Effort) -> Table:
    """What measuring takes in memory."""
    rows = []
    for net in NETS.values():
        plain, ours = (
            memory.growth(net.spec, effort.dataset, effort.memory_iterations, watched) for watched in (False, True)
        )
        figures: dict[str, Figure] = {
            _MEMORY: (ours - plain) / 2**20,
            "training alone, MiB": plain / 2**20,
            "measured training, MiB": ours / 2**20,
        }
        rows.append(Row(net.title, figures, [MEMORY_GOAL]))
    return Table("memory of measuring everything at every step", rows)


def _plain(network: Network, spec: Spec, device: torch.device, effort: Effort) -> Timed:
    step = plain_step(network(spec, device), spec, dataset(effort.dataset), device)
    return timed(step, effort.seconds, device)


def _watched(spec: Spec, kept: bool, device: torch.device, effort: Effort) -> Timed:
    with stored(spec) if kept else nullcontext(forget) as sink:
        return watched(spec, dataset(effort.dataset), effort.seconds, device, sink, effort.pace)


def _goals(limit: float | None) -> list[Goal]:
    return [Goal(_RATIO, "≤", limit)] if limit else []


def _figures(found: Times, base: Times) -> dict[str, Figure]:
    return {
        "µs, median": found.wall * 1e6,
        "µs, least": found.least * 1e6,
        _RATIO: found.over(base),
        "of the least": found.least / base.least,
        "of processor time": found.processor_over(base),
    }


def _same_training(net: Net, device: torch.device, effort: Effort) -> Row:
    losses = losses_after(net.spec, dataset(effort.dataset), effort.same_after, device)
    same = "the same bit for bit" if len(set(losses)) == 1 else f"not the same: {losses}"
    return Row(f"test loss after {effort.same_after} iterations of each", note=same)


if __name__ == "__main__":
    command(run)
