"""CSV (RFC 4180): every number with as many digits as give it back exactly, `nan` and `inf` as they are."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from gradprobe.export.tables import Categories, Column, Table

_ROWS: Final = 10_000


def lines(table: Table) -> Iterator[bytes]:
    """The file in parts, header first."""
    yield (",".join(table) + "\r\n").encode()
    length = min((_length(column) for column in table.values()), default=0)
    for start in range(0, length, _ROWS):
        texts = [_texts(column, slice(start, start + _ROWS)) for column in table.values()]
        yield "".join(f"{','.join(row)}\r\n" for row in zip(*texts, strict=True)).encode()


def _length(column: Column) -> int:
    return len(column.numbers if isinstance(column, Categories) else column)


def _texts(column: Column, part: slice) -> list[str]:
    if isinstance(column, Categories):
        quoted = [_quoted(word) for word in column.words]
        return [quoted[number] for number in column.numbers[part]]
    values = column[part]
    if np.issubdtype(values.dtype, np.integer):
        return list(map(str, values.tolist()))
    return list(values.astype("U32"))


def _quoted(word: str) -> str:
    """A name comes from a user's own module: a spreadsheet must not take it for a formula, nor a comma for an end."""
    if word[:1] in "=+-@\t\r":
        word = f"'{word}"
    return f'"{word.replace(chr(34), chr(34) * 2)}"' if any(sign in word for sign in ',"\r\n') else word
