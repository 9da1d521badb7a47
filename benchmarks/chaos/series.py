"""Everything that is stored of one experiment, decoded, to be compared with another's bit for bit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.levels import LevelBlock
from gradprobe.statistics import STATISTICS, names
from gradprobe.store.database import Database
from gradprobe.store.tables import blocks

Arrays = dict[str, npt.NDArray[Any]]

#: What a clock measured differs from run to run.
_TIMED = names("metrics").index("seconds_per_iteration")


@dataclass(frozen=True)
class Series:
    """`parts`: under (tensor, level, kind) the arrays stored, joined over all blocks."""

    parts: dict[tuple[str, int, str], Arrays]

    def differences(self, other: "Series") -> list[str]:
        """What is not the same in both, bit for bit; times are left out."""
        found = [f"{key} is in one alone" for key in self.parts.keys() ^ other.parts.keys()]
        for key in self.parts.keys() & other.parts.keys():
            for name, ours in self.parts[key].items():
                theirs = other.parts[key][name]
                if ours.shape != theirs.shape or ours.tobytes() != theirs.tobytes():
                    found.append(f"{key}: {name}, {ours.shape} and {theirs.shape}")
        return sorted(found)

    def faults(self, iterations: int, every: int = 1) -> list[str]:
        """The tensors whose steps are not exactly those that were to be recorded, each once."""
        expected = np.arange(0, iterations, every)
        return [
            f"{tensor} has {len(arrays['steps'])} steps, not {len(expected)}"
            for (tensor, level, kind), arrays in self.parts.items()
            if (level, kind) == (0, "statistics") and tensor != "evaluation"
            if not np.array_equal(arrays["steps"], expected)
        ]


def read_series(database: Database, experiment_id: str) -> Series:
    """All levels of all tensors. Raises CorruptBlock."""
    with database.read() as connection:
        query = select(blocks.c.tensor, blocks.c.level).where(blocks.c.experiment_id == experiment_id).distinct()
        parts: dict[tuple[str, int, str], Arrays] = {}
        for tensor, level in connection.execute(query).all():
            for kind, arrays in _part(connection, experiment_id, tensor, level).items():
                parts[tensor, level, kind] = arrays
    return Series(parts)


def _part(connection: Connection, experiment_id: str, tensor: Any, level: int) -> dict[str, Arrays]:
    place = (blocks.c.experiment_id == experiment_id) & (blocks.c.tensor == tensor) & (blocks.c.level == level)
    rows = connection.execute(
        select(blocks.c.statistics, blocks.c.counts).where(place).order_by(blocks.c.first_step)
    ).all()
    statistics = [row.statistics for row in rows if row.statistics is not None]
    counts = [CountsBlock.decode(row.counts) for row in rows if row.counts is not None]
    untimed = [index for index in range(len(STATISTICS[tensor])) if (tensor, index) != ("metrics", _TIMED)]
    found: dict[str, Arrays] = {}
    if statistics and level:
        buckets = LevelBlock.join([LevelBlock.decode(row, untimed) for row in statistics])
        found["statistics"] = {name: getattr(buckets, name) for name in LevelBlock.__slots__}
    elif statistics:
        measured = StatisticsBlock.join([StatisticsBlock.decode(row, untimed) for row in statistics])
        found["statistics"] = {"steps": measured.steps, "values": measured.values}
    if counts:
        joined = CountsBlock.join(counts)
        names_of = ("steps", "starts", "bins", "counts")
        found["counts"] = {name: getattr(joined, name) for name in names_of}
    return found
