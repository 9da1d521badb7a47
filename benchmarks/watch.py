"""What `gradprobe.watch` costs somebody's own loop: everything at every step, beside the plain loop."""

from functools import partial

import torch
from torch import nn

import gradprobe
from benchmarks.overhead import NETS
from benchmarks.results import Goal, Result, Row, Table, command
from benchmarks.timing import Timed, in_rounds
from benchmarks.training import Step, dataset, plain_network, plain_step, timed
from gradprobe.spec import Spec

PLAIN = "plain loop"
_HOOKED = "the same, a module with a forward of its own"
_GOALS = {"classic": 1.10}


def run(quick: bool) -> Result:
    """The overhead's networks, on the CPU."""
    rounds, seconds, name = (1, 0.01, "synthetic") if quick else (15, 1.0, "mnist")
    tables = []
    for short, net in NETS.items():
        subjects = {
            PLAIN: partial(_plain, net.spec, name, seconds),
            "watched, everything, every step": partial(_watched, net.spec, name, seconds, 1),
            "watched, histograms every 25th": partial(_watched, net.spec, name, seconds, 25),
            _HOOKED: partial(_watched, net.spec, name, seconds, 25, _Own),
        }
        times = in_rounds(subjects, rounds)
        rows = [
            Row(
                title,
                {
                    "µs, median": found.wall * 1e6,
                    "ratio": found.over(times[PLAIN]),
                    "of processor time": found.processor_over(times[PLAIN]),
                },
                [Goal("ratio", "≤", _GOALS[short])] if short in _GOALS and title != PLAIN else (),
            )
            for title, found in times.items()
        ]
        tables.append(Table(net.title, rows))
    return Result("watch", tables)


class _Own(nn.Sequential):
    """A module with a forward of its own, as far as anybody can tell: it is measured by hooks."""


def _plain(spec: Spec, name: str, seconds: float) -> Timed:
    device = torch.device("cpu")
    return timed(plain_step(plain_network(spec, device), spec, dataset(name), device), seconds, device)


def _watched(
    spec: Spec, name: str, seconds: float, histograms_every: int, kind: type[nn.Sequential] = nn.Sequential
) -> Timed:
    device = torch.device("cpu")
    network = kind(*plain_network(spec, device))
    step: Step = plain_step(network, spec, dataset(name), device)
    with gradprobe.watch(network, histograms_every=histograms_every):
        return timed(step, seconds, device)


if __name__ == "__main__":
    command(run)
