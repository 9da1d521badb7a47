"""A run that was measured elsewhere, reported whole: what `gradprobe import` does."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

import numpy as np

from gradprobe.blocks import StatisticsBlock
from gradprobe.client.exchange import Exchange
from gradprobe.client.requests import Request, creation
from gradprobe.reports import Report
from gradprobe.resources import Experiment
from gradprobe.statistics import Tensor
from gradprobe.subject import WatchedSpec

#: Bytes of arrays in one report: a third more in base64, and still well under a server's smallest usual bound.
_REPORT_BYTES: Final = 500_000


async def report_run(
    exchange: Exchange, spec: WatchedSpec, statistics: Mapping[Tensor, StatisticsBlock], stop: int
) -> Experiment:
    """Begin a run, report all of its steps t < `stop`, and end it; a request whose answer is lost is sent again.

    Raises:
        ServerUnreachable, ProblemError, UnexpectedAnswer: as every call.
    """
    made = await exchange.send(Experiment, creation("/runs", spec.model_dump(mode="json"), None))
    for report in reports(statistics, stop):
        body = report.model_dump(mode="json")
        await exchange.send(Experiment, Request("POST", f"/runs/{made.id}/statistics", body=body, repeatable=True))
    end = Request("POST", f"/runs/{made.id}/end", body={"status": "succeeded"}, repeatable=True)
    return await exchange.send(Experiment, end)


def reports(statistics: Mapping[Tensor, StatisticsBlock], stop: int) -> Iterator[Report]:
    """Ranges that join each other from 0 to `stop`, each with so many steps as a report may hold."""
    steps = np.unique(np.concatenate([block.steps for block in statistics.values()]))
    bytes_a_step = sum(block.values[..., 0].nbytes for block in statistics.values())
    most = max(1, _REPORT_BYTES // bytes_a_step)
    bounds = [0, *steps[most::most].tolist(), stop]
    for start, beyond in pairwise(bounds):
        parts = {tensor: block.between(start, beyond) for tensor, block in statistics.items()}
        yield Report.of(start, beyond, {tensor: part for tensor, part in parts.items() if len(part.steps)}, {})
