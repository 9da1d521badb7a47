"""The innermost loops of a stack's kernels, written for vector registers: the compiler finds none in them by itself.

A row of sixteen numbers is one register of 512 bits, or two of 256. The functions here are called from compiled code
with addresses; every sum of products is one of the two loops below, over rows of a table.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from gradprobe.probe.compiled import compiled_with

Function = TypeVar("Function", bound=Callable[..., Any])

#: Units that are computed at once.
UNITS: Final = 16
CACHE_LINE: Final = 64  # bytes


def compiled(function: Function) -> Function:
    """Compile a function of this package."""
    return compiled_with(function, Path(__file__).parent)


_cgutils: Any = cgutils  # untyped
_FLOAT: Final = ir.FloatType()
_VECTOR: Final = ir.VectorType(_FLOAT, UNITS)
_INT64: Final = ir.IntType(64)
_INT32: Final = ir.IntType(32)
_FUSED: Final = ("contract",)  # a product and its sum may be one instruction
_AT_ONCE: Final = 4  # sums that do not wait for each other


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: Any, pointer: Any) -> Any:
    value = builder.load(pointer)
    value.align = 4
    return value


def _store(builder: Any, value: Any, pointer: Any) -> None:
    builder.store(value, pointer).align = 4


def _spread(builder: Any, number: Any) -> Any:
    """A vector whose elements are all this number."""
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INT32, UNITS), [0] * UNITS))


def _add_product(builder: Any, number: Any, vector: Any, onto: Any) -> Any:
    product = builder.fmul(_spread(builder, number), vector, flags=_FUSED)
    return builder.fadd(product, onto, flags=_FUSED)


class _Entries:
    """An image's entries as the two innermost loops read them: of each its row of the table, and its value.

    Without columns they are a dense layer's inputs, one a row.
    """

    def __init__(self, builder: Any, columns: Any, values: Any, table: Any, levels: Any = None) -> None:
        self._builder = builder
        self._columns = None if columns is None else _pointer(builder, columns, ir.IntType(16))
        self._values = _pointer(builder, values, _FLOAT if levels is None else ir.IntType(8))
        self._table = _pointer(builder, table, _FLOAT)
        self._levels = None if levels is None else _pointer(builder, levels, _FLOAT)

    def row(self, index: Any) -> Any:
        """Where the row of this entry's column is."""
        builder = self._builder
        column = index
        if self._columns is not None:
            column = builder.zext(builder.load(builder.gep(self._columns, [index])), _INT64)
        place = builder.gep(self._table, [builder.mul(column, ir.Constant(_INT64, UNITS))])
        return builder.bitcast(place, _VECTOR.as_pointer())

    def value(self, index: Any) -> Any:
        """Its value: a number, or a level's place."""
        builder = self._builder
        found = builder.load(builder.gep(self._values, [index]))
        if self._levels is None:
            return found
        return builder.load(builder.gep(self._levels, [builder.zext(found, _INT64)]))


def _mask(builder: Any, wide: Any) -> Any:
    """True in the first `wide` places."""
    places = ir.VectorType(_INT32, UNITS)
    first = builder.insert_element(ir.Constant(places, ir.Undefined), builder.trunc(wide, _INT32), _INT32(0))
    everywhere = builder.shuffle_vector(first, ir.Constant(places, ir.Undefined), ir.Constant(places, [0] * UNITS))
    return builder.icmp_unsigned("<", ir.Constant(places, list(range(UNITS))), everywhere)


def _masked(builder: Any, name: str, kind: Any) -> Any:
    return _cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.{name}.v{UNITS}f32.p0")


_BYTES: Final = ir.IntType(8).as_pointer()
_MASK: Final = ir.VectorType(ir.IntType(1), UNITS)
_LOAD_KIND: Final = ir.FunctionType(_VECTOR, [_BYTES, _INT32, _MASK, _VECTOR])
_STORE_KIND: Final = ir.FunctionType(ir.VoidType(), [_VECTOR, _BYTES, _INT32, _MASK])


def _sum_of_rows(builder: Any, entries: _Entries, count: Any, first: Any, target: Any, wide: Any) -> None:
    """The first `wide` of: the vector at `first`, plus Σ value of entry k · its row; to `target`."""
    partial = [_cgutils.alloca_once(builder, _VECTOR) for _ in range(_AT_ONCE)]
    builder.store(_load(builder, _pointer(builder, first, _VECTOR)), partial[0])
    for other in partial[1:]:
        builder.store(ir.Constant(_VECTOR, [0.0] * UNITS), other)

    def add(index: Any, onto: Any) -> None:
        row = _load(builder, entries.row(index))
        builder.store(_add_product(builder, entries.value(index), row, builder.load(onto)), onto)

    zero, one, several = (ir.Constant(_INT64, number) for number in (0, 1, _AT_ONCE))
    whole = builder.and_(count, ir.Constant(_INT64, -_AT_ONCE))
    with _cgutils.for_range_slice(builder, zero, whole, several) as (index, _):
        for place, onto in enumerate(partial):
            add(builder.add(index, ir.Constant(_INT64, place)), onto)
    with _cgutils.for_range_slice(builder, whole, count, one) as (index, _):
        add(index, partial[0])
    one, two, three, four = (builder.load(onto) for onto in partial)
    total = builder.fadd(builder.fadd(one, two), builder.fadd(three, four))
    store = _masked(builder, "store", _STORE_KIND)
    builder.call(store, [total, builder.inttoptr(target, _BYTES), _INT32(4), _mask(builder, wide)])


def _sum_onto_rows(builder: Any, entries: _Entries, count: Any, row: Any, wide: Any) -> None:
    """Onto each entry's row its value times the first `wide` of what lies at `row`."""
    load, zeros = _masked(builder, "load", _LOAD_KIND), ir.Constant(_VECTOR, [0.0] * UNITS)
    added = builder.call(load, [builder.inttoptr(row, _BYTES), _INT32(4), _mask(builder, wide), zeros])
    with _cgutils.for_range(builder, count) as loop:
        onto = entries.row(loop.index)
        _store(builder, _add_product(builder, entries.value(loop.index), added, _load(builder, onto)), onto)


def _over_entries(body: Callable[..., None], given: Any, context: Any, builder: Any) -> Any:
    """Of arguments columns, values, levels, count, table and what `body` takes; values are levels' places where there
    are levels."""
    columns, values, levels, count, table, *others = given
    plain = builder.icmp_signed("==", levels, _INT64(0))
    with builder.if_else(plain) as (numbers, places):
        with numbers:
            body(builder, _Entries(builder, columns, values, table), count, *others)
        with places:
            body(builder, _Entries(builder, columns, values, table, levels), count, *others)
    return context.get_dummy_value()


def _over_rows(body: Callable[..., None], given: Any, context: Any, builder: Any) -> Any:
    """Of arguments values, count, table and what `body` takes."""
    values, count, table, *others = given
    body(builder, _Entries(builder, None, values, table), count, *others)
    return context.get_dummy_value()


@intrinsic
def _add_rows(
    _context: Any,
    _columns: Any,
    _values: Any,
    _levels: Any,
    _count: Any,
    _table: Any,
    _first: Any,
    _to: Any,
    _wide: Any,
) -> Any:
    """to = first [16] + Σ value of entry k · table[columns[k]]; arguments are addresses, and how many of what."""
    signature = types.void(*[types.int64] * 8)
    return signature, lambda context, builder, _, given: _over_entries(_sum_of_rows, given, context, builder)


@intrinsic
def _add_to_rows(
    _context: Any, _columns: Any, _values: Any, _levels: Any, _count: Any, _table: Any, _row: Any, _wide: Any
) -> Any:
    """table[columns[k]] += value of entry k · row [wide]."""
    signature = types.void(*[types.int64] * 7)
    return signature, lambda context, builder, _, given: _over_entries(_sum_onto_rows, given, context, builder)


@intrinsic
def _add_all_rows(_context: Any, _values: Any, _count: Any, _table: Any, _first: Any, _to: Any, _wide: Any) -> Any:
    """to = first [16] + Σ values[k] · table[k], of `count` rows."""
    signature = types.void(*[types.int64] * 6)
    return signature, lambda context, builder, _, given: _over_rows(_sum_of_rows, given, context, builder)


@intrinsic
def _add_to_all_rows(_context: Any, _values: Any, _count: Any, _table: Any, _row: Any, _wide: Any) -> Any:
    """table[k] += values[k] · row [wide], of `count` rows."""
    signature = types.void(*[types.int64] * 5)
    return signature, lambda context, builder, _, given: _over_rows(_sum_onto_rows, given, context, builder)


def _at(builder: Any, address: Any, index: Any, stride: Any) -> Any:
    """The address of float number index · stride."""
    return builder.add(address, builder.shl(builder.mul(index, stride), _INT64(2)))


@intrinsic
def _take_rows(_context: Any, _address: Any, _stride: Any, _count: Any, _wide: Any, _table: Any) -> Any:
    """table[k] = the first `wide` of what lies at address + k · stride floats, then zeros; of `count` rows."""

    def codegen(context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        address, stride, count, wide, table = given
        load, mask, zeros = (
            _masked(builder, "load", _LOAD_KIND),
            _mask(builder, wide),
            ir.Constant(_VECTOR, [0.0] * UNITS),
        )
        with _cgutils.for_range(builder, count) as loop:
            source = builder.inttoptr(_at(builder, address, loop.index, stride), _BYTES)
            row = _pointer(builder, _at(builder, table, loop.index, _INT64(UNITS)), _VECTOR)
            _store(builder, builder.call(load, [source, _INT32(4), mask, zeros]), row)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), codegen


@intrinsic
def _give_rows(_context: Any, _table: Any, _count: Any, _wide: Any, _address: Any, _stride: Any) -> Any:
    """The first `wide` of table[k] to address + k · stride floats, of `count` rows."""

    def codegen(context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        table, count, wide, address, stride = given
        store, mask = _masked(builder, "store", _STORE_KIND), _mask(builder, wide)
        with _cgutils.for_range(builder, count) as loop:
            row = _load(builder, _pointer(builder, _at(builder, table, loop.index, _INT64(UNITS)), _VECTOR))
            target = builder.inttoptr(_at(builder, address, loop.index, stride), _BYTES)
            builder.call(store, [row, target, _INT32(4), mask])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), codegen


@intrinsic
def _set_rows(_context: Any, _row: Any, _count: Any, _table: Any) -> Any:
    """table[k] = row [16], of `count` rows."""

    def codegen(context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        value = _load(builder, _pointer(builder, given[0], _VECTOR))
        with _cgutils.for_range(builder, given[1]) as loop:
            _store(builder, value, _pointer(builder, _at(builder, given[2], loop.index, _INT64(UNITS)), _VECTOR))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), codegen


@intrinsic
def _fetch(_context: Any, _address: Any, _bytes: Any) -> Any:
    """Have so many bytes brought to the cache while something else is computed."""

    def codegen(context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, _INT32, _INT32, _INT32])
        fetch = _cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        options = [ir.Constant(_INT32, number) for number in (0, 3, 1)]  # to read, to keep, data
        zero, line = ir.Constant(_INT64, 0), ir.Constant(_INT64, CACHE_LINE)
        with _cgutils.for_range_slice(builder, zero, given[1], line) as (offset, _):
            builder.call(fetch, [builder.inttoptr(builder.add(given[0], offset), pointer), *options])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


# As compiled code calls them: the compiler gives an intrinsic's first argument itself, which the types don't know.
add_rows: Any = _add_rows
add_to_rows: Any = _add_to_rows
add_all_rows: Any = _add_all_rows
add_to_all_rows: Any = _add_to_all_rows
take_rows: Any = _take_rows
give_rows: Any = _give_rows
set_rows: Any = _set_rows
fetch: Any = _fetch
