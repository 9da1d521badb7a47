"""What was measured as one long table, one value a row, for pandas and for polars."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradprobe.client.optional import require

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl


@dataclass(frozen=True, eq=False)
class Words:
    """A column of N words from a few: `codes` int32 [N] are places in `words`, whose order is the column's."""

    codes: NDArray[np.int32]
    words: tuple[str, ...]


Column = NDArray[Any] | Words
Columns = Mapping[str, Column]


class Tabular:
    """Part of what the client returns: the same values as a data frame."""

    def columns(self) -> Columns:
        """The table's columns, each of as many rows."""
        raise NotImplementedError

    def to_pandas(self) -> "pd.DataFrame":
        """The table as a pandas frame; names are ordered categories, layers from the input on.

        Raises:
            MissingLibrary: `pip install "gradprobe[pandas]"` brings it.
        """
        pandas = require("pandas", extra="pandas")
        return pandas.DataFrame(  # type: ignore[no-any-return]
            {
                name: pandas.Categorical.from_codes(column.codes, column.words, ordered=True)
                if isinstance(column, Words)
                else column
                for name, column in self.columns().items()
            }
        )

    def to_polars(self) -> "pl.DataFrame":
        """The table as a polars frame; names are of type Enum, layers from the input on. NaN stays NaN, not null.

        Raises:
            MissingLibrary: `pip install "gradprobe[polars]"` brings it.
        """
        polars = require("polars", extra="polars")
        return polars.DataFrame(  # type: ignore[no-any-return]
            {
                name: polars.Series(column.words, dtype=polars.Enum(column.words)).gather(column.codes)
                if isinstance(column, Words)
                else column
                for name, column in self.columns().items()
            }
        )


@dataclass(frozen=True, eq=False)
class Part:
    """Values of one statistic of one layer: `steps` int64 [S], `values` float64 [S]."""

    layer: str
    statistic: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]


def long(parts: Sequence[Part]) -> dict[str, Column]:
    """All parts, one under the other: step, layer, statistic, value."""
    lengths = [part.steps.size for part in parts]
    return {
        "step": joined([part.steps for part in parts], np.int64),
        "layer": words([part.layer for part in parts], lengths),
        "statistic": words([part.statistic for part in parts], lengths),
        "value": joined([part.values for part in parts], np.float64),
    }


def words(names: Sequence[str], lengths: Iterable[int]) -> Words:
    """Each name so many times; the words in the order of their first use."""
    found = tuple(dict.fromkeys(names))
    place = {name: index for index, name in enumerate(found)}
    codes = np.array([place[name] for name in names], dtype=np.int32)
    return Words(np.repeat(codes, np.array([*lengths], dtype=np.int64)), found)


def joined(columns: Sequence[NDArray[Any]], kind: Any) -> NDArray[Any]:
    """One column under the other, also where there is none."""
    return np.concatenate(columns, dtype=kind) if columns else np.empty(0, dtype=kind)
