"""One experiment's blocks, read: whole, by range, statistic by statistic, or from coarser levels."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from sqlalchemy import Connection, Select, func, or_, select

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.errors import ObjectStoreUnavailable
from gradprobe.levels import WIDTHS, LevelBlock, pieces
from gradprobe.objects import ObjectStore, Piece
from gradprobe.statistics import Tensor
from gradprobe.store import objects
from gradprobe.store.cache import Cache
from gradprobe.store.tables import blocks

Block = TypeVar("Block", StatisticsBlock, CountsBlock, LevelBlock)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads inside a transaction that the caller opened.

    With a cache, decoded blocks are kept under `version`, which must change whenever what is stored does; give it only
    for an experiment that has ended. What was moved to the object store is read from `store`; whatever reads may then
    raise ObjectStoreUnavailable.
    """

    connection: Connection
    experiment_id: str
    cache: Cache | None = None
    version: int = 0
    store: ObjectStore | None = None

    def statistics(
        self, tensor: Tensor, start: int = 0, stop: int | None = None, statistics: Sequence[int] | None = None
    ) -> StatisticsBlock | None:
        """The iterations start ≤ t < stop, all statistics or those at these positions; None where none are stored.

        Raises:
            CorruptBlock: a stored block is damaged.
        """
        chosen = None if statistics is None else tuple(statistics)
        place = _Place(tensor, 0, start, stop)
        found = self._found(place, "statistics", lambda row: StatisticsBlock.decode(row, chosen), chosen)
        if not found:
            return None
        joined = StatisticsBlock.join(found)
        return joined.between(start, stop if stop is not None else int(joined.steps[-1]) + 1)

    def counts(self, tensor: Tensor, start: int = 0, stop: int | None = None) -> CountsBlock | None:
        """The histograms of the iterations start ≤ t < stop; None where none are stored. Raises CorruptBlock."""
        found = self._found(_Place(tensor, 0, start, stop), "counts", CountsBlock.decode, "counts")
        if not found:
            return None
        joined = CountsBlock.join(found)
        return joined.between(start, stop if stop is not None else int(joined.steps[-1]) + 1)

    def reduced(
        self, tensor: Tensor, start: int, stop: int | None, width: int, statistics: Sequence[int]
    ) -> LevelBlock | None:
        """The iterations start ≤ t < stop in aligned buckets of `width`, a power of two; None where none are stored.

        A bucket that the range cuts holds its part within the range.

        Raises:
            CorruptBlock: a stored block is damaged.
        """
        levels = [level for level in self._complete_levels(tensor) if WIDTHS[level] <= width]
        parts: list[LevelBlock] = []
        for level, first, beyond in pieces(start, stop, levels):
            if level:
                part = self._level(_Place(tensor, level, first, beyond), tuple(statistics))
            else:
                raw = self.statistics(tensor, first, beyond, statistics)
                part = LevelBlock.of(raw) if raw else None
            if part is not None:
                parts.append(part.merged(width))
        return LevelBlock.join(parts).merged(width) if parts else None

    def last_step(self, tensor: Tensor) -> int | None:
        """The last iteration at which anything of this tensor was recorded."""
        return self._last_steps(tensor).get(0)

    def _complete_levels(self, tensor: Tensor) -> list[int]:
        """The levels that reach as far as what was measured: an older release, or a sparse series, has none."""
        last_steps = self._last_steps(tensor)
        return [level for level in WIDTHS if level in last_steps and last_steps[level] == last_steps[0]]

    def _last_steps(self, tensor: Tensor) -> dict[int, int]:
        query = (
            select(blocks.c.level, func.max(blocks.c.last_step))
            .where(blocks.c.experiment_id == self.experiment_id, blocks.c.tensor == tensor)
            .group_by(blocks.c.level)
        )
        return {int(level): int(last) for level, last in self.connection.execute(query)}

    def _level(self, place: "_Place", chosen: tuple[int, ...]) -> LevelBlock | None:
        found = self._found(place, "statistics", lambda row: LevelBlock.decode(row, chosen), chosen)
        if not found:
            return None
        joined = LevelBlock.join(found)
        return joined.between(place.start, place.stop if place.stop is not None else int(joined.starts[-1]) + 1)

    def _found(self, place: "_Place", name: str, decode: Callable[[bytes], Block], part: Hashable) -> list[Block]:
        """The blocks of one level that reach into the range; `part` names what `decode` makes of the column `name`."""
        filled = or_(blocks.c[name].is_not(None), blocks.c[f"{name}_start"].is_not(None))
        reaching = place.narrow(select(blocks.c.first_step), self.experiment_id).where(filled)
        if self.cache is None:
            return [decode(packed) for _, packed in self._packed(reaching, name)]
        key: tuple[Hashable, ...] = (self.experiment_id, self.version, place.tensor, place.level, part)
        held = {start: self.cache.get((*key, start)) for start in self.connection.execute(reaching).scalars()}
        missing = [start for start, block in held.items() if block is None]
        if missing:
            for start, packed in self._packed(reaching.where(blocks.c.first_step.in_(missing)), name):
                held[start] = block = decode(packed)
                self.cache.put((*key, start), block, _size(block))
        return [block for block in held.values() if block is not None]

    def _packed(self, query: Select[int], name: str) -> Iterator[tuple[int, bytes]]:
        """Of each block its first step and the bytes of the column `name`, wherever they are."""
        columns = (name, f"{name}_start", f"{name}_length", f"{name}_checksum")
        rows = self.connection.execute(query.add_columns(*(blocks.c[column] for column in columns))).all()
        moved = [Piece(*place) for _, packed, *place in rows if packed is None]
        fetched = iter(self._fetched(moved) if moved else ())
        return ((start, packed if packed is not None else next(fetched)) for start, packed, *_ in rows)

    def _fetched(self, pieces: Sequence[Piece]) -> list[bytes]:
        if self.store is None:
            raise ObjectStoreUnavailable(
                "What this experiment measured is in an object store that this process was not told of; "
                "its operator sets GRADPROBE_OBJECT_STORE."
            )
        return self.store.read(objects.name_of(self.connection, self.experiment_id) or "", pieces)


@dataclass(frozen=True, slots=True)
class _Place:
    """A range of one tensor's iterations on one level."""

    tensor: Tensor
    level: int
    start: int
    stop: int | None

    def narrow(self, query: Select[int], experiment_id: str) -> Select[int]:
        """To the blocks that reach into the range, in order."""
        query = query.where(
            blocks.c.experiment_id == experiment_id,
            blocks.c.tensor == self.tensor,
            blocks.c.level == self.level,
            blocks.c.last_step >= self.start,
        ).order_by(blocks.c.first_step)
        return query if self.stop is None else query.where(blocks.c.first_step < self.stop)


def _size(block: StatisticsBlock | CountsBlock | LevelBlock) -> int:
    values = [getattr(block, name) for name in type(block).__slots__]
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray))
