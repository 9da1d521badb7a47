"""Parquet and Arrow files by pyarrow, with the spec and the verdict in the schema's metadata."""

import json
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from gradprobe.export.contents import Contents
from gradprobe.export.tables import Categories, Column, TableName, table


def to_table(contents: Contents, name: TableName) -> pa.Table:
    """As pyarrow's table; its metadata `gradprobe` is a JSON document that says what was measured, and how."""
    columns = {title: _array(column) for title, column in table(contents, name).items()}
    about = json.dumps({**contents.about(), "table": name})
    return pa.table(columns).replace_schema_metadata({"gradprobe": about})


def to_parquet(contents: Contents, name: TableName) -> bytes:
    """A Parquet file, compressed with zstd."""
    sink = pa.BufferOutputStream()
    parquet.write_table(to_table(contents, name), sink, compression="zstd")
    return _bytes(sink)


def to_arrow(contents: Contents, name: TableName) -> bytes:
    """An Arrow file (the IPC file format, Feather version 2), not compressed, so that it can be mapped."""
    found = to_table(contents, name)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, found.schema) as writer:
        writer.write_table(found)
    return _bytes(sink)


def _array(column: Column) -> Any:
    if isinstance(column, Categories):
        return pa.DictionaryArray.from_arrays(pa.array(column.numbers), pa.array(list(column.words), pa.string()))
    return pa.array(column)


def _bytes(sink: Any) -> bytes:
    found: bytes = sink.getvalue().to_pybytes()
    return found
