"""Blocks: bit-exact there and back, damage always noticed, parts that join to the whole."""

import base64
import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gradprobe.blocks import CountsBlock, StatisticsBlock, pack, unpack
from gradprobe.errors import CorruptBlock
from gradprobe.histogram import BINS

DTYPES = arrays.scalar_dtypes().filter(lambda dtype: dtype.kind in "biufcmM" and dtype.itemsize <= 16)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7)
SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3.4e38]


@st.composite
def any_array(draw: st.DrawFn) -> npt.NDArray[np.generic]:
    """An array of any dtype and shape, made of arbitrary bytes: every NaN payload comes up."""
    dtype, shape = draw(DTYPES), draw(SHAPES)
    size = int(np.prod(shape))
    if dtype.kind == "b":
        return draw(arrays.arrays(dtype, shape))
    raw = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
    return np.frombuffer(raw, dtype=dtype).reshape(shape)


def same_bits(left: npt.NDArray[np.generic], right: npt.NDArray[np.generic]) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def statistics_block(steps: npt.NDArray[np.int64], seed: int = 0) -> StatisticsBlock:
    values = np.random.default_rng(seed).standard_normal((7, 3, len(steps))).astype(np.float32)
    values.flat[: len(SPECIAL)] = SPECIAL[: values.size]
    return StatisticsBlock(steps, values)


def dense_counts(steps: int, layers: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Counts of which most are zero, with one row that is empty and one that is full."""
    generator = np.random.default_rng(seed)
    dense = generator.integers(1, 10**6, (steps, layers, BINS)) * (generator.random((steps, layers, BINS)) < 0.01)
    dense[0, 0] = 0
    dense[-1, -1] = 2**32 - 1
    return dense.astype(np.int64)


def damaged(block: bytes, place: int, mask: int) -> bytes:
    changed = bytearray(block)
    changed[place] ^= mask
    return bytes(changed)


@given(st.lists(any_array(), max_size=4))
def test_any_arrays_come_back_bit_for_bit(given_arrays: list[npt.NDArray[np.generic]]) -> None:
    read = unpack(pack(given_arrays))
    assert len(read) == len(given_arrays)
    assert all(same_bits(*pair) for pair in zip(given_arrays, read, strict=True))


def test_a_strided_array_comes_back_as_it_reads() -> None:
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5)[::2, ::-1].transpose(2, 0, 1)
    assert same_bits(np.ascontiguousarray(array), unpack(pack([array]))[0])


def test_what_is_read_can_be_written_to() -> None:
    [array] = unpack(pack([np.zeros(3, np.float32)]))
    array[0] = 1.0
    assert array.tolist() == [1.0, 0.0, 0.0]


@given(st.lists(any_array(), min_size=1, max_size=3), st.data())
def test_a_changed_byte_anywhere_is_noticed(given_arrays: list[npt.NDArray[np.generic]], data: st.DataObject) -> None:
    block = pack(given_arrays)
    place, mask = data.draw(st.integers(0, len(block) - 1)), data.draw(st.integers(1, 255))
    with pytest.raises(CorruptBlock):
        unpack(damaged(block, place, mask))


def test_every_single_bit_is_guarded() -> None:
    block = pack([np.arange(5, dtype=np.int64), np.array([[1.5, np.nan]], np.float32)])
    for place in range(len(block)):
        for bit in range(8):
            with pytest.raises(CorruptBlock):
                unpack(damaged(block, place, 1 << bit))


@pytest.mark.parametrize("kept", [0, 1, 4, 8, 11, 12, 20, -5, -1])
def test_a_block_cut_short_is_noticed(kept: int) -> None:
    block = statistics_block(np.arange(10)).encode()
    with pytest.raises(CorruptBlock):
        unpack(block[:kept])


def test_what_is_appended_is_noticed() -> None:
    with pytest.raises(CorruptBlock):
        unpack(statistics_block(np.arange(10)).encode() + b"\0")


def test_a_smooth_series_takes_a_fraction_of_its_raw_size() -> None:
    steps = np.arange(2000)
    decay = np.exp(-steps / 500.0) * np.logspace(0, -6, 6)[:, None]
    block = StatisticsBlock(steps, np.broadcast_to(decay, (7, 6, 2000)).astype(np.float32))
    assert len(block.encode()) < 0.6 * block.values.nbytes


def test_statistics_come_back_bit_for_bit() -> None:
    block = statistics_block(np.array([0, 5, 10, 2**40]))
    read = StatisticsBlock.decode(block.encode())
    assert same_bits(read.steps, block.steps)
    assert same_bits(read.values, block.values)


def test_values_that_do_not_fit_the_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit 3 steps"):
        StatisticsBlock(np.arange(3), np.zeros((7, 2, 4), np.float32))
    with pytest.raises(ValueError, match="do not fit"):
        StatisticsBlock(np.arange(3), np.zeros((7, 3), np.float32))


@given(st.sets(st.integers(1, 39), max_size=6))
def test_statistics_cut_anywhere_join_to_the_whole(cuts: set[int]) -> None:
    steps = np.arange(40, dtype=np.int64) * 3
    whole = statistics_block(steps)
    ends = [0, *sorted(cuts), 40]
    parts = [
        StatisticsBlock(steps[first:last], whole.values[:, :, first:last]) for first, last in itertools.pairwise(ends)
    ]
    joined = StatisticsBlock.join(parts)
    assert same_bits(joined.steps, whole.steps)
    assert same_bits(joined.values, whole.values)


@given(st.integers(-5, 140), st.integers(-5, 140))
def test_statistics_between_are_those_of_the_steps_asked_for(start: int, stop: int) -> None:
    steps = np.arange(40, dtype=np.int64) * 3
    whole = statistics_block(steps)
    part = whole.between(start, stop)
    wanted = [place for place, step in enumerate(steps.tolist()) if start <= step < stop]
    assert part.steps.tolist() == steps[wanted].tolist()
    assert same_bits(np.ascontiguousarray(part.values), whole.values[:, :, wanted])


def test_counts_come_back_as_they_were() -> None:
    dense = dense_counts(4, 3)
    block = CountsBlock.decode(CountsBlock.from_dense(np.arange(4) * 25, dense).encode())
    assert block.steps.tolist() == [0, 25, 50, 75]
    assert block.layers == 3
    np.testing.assert_array_equal(block.dense(), dense)


@given(
    arrays.arrays(
        np.int64, st.tuples(st.integers(1, 3), st.integers(1, 3), st.just(BINS)), elements=st.just(0), fill=st.just(0)
    ),
    st.data(),
)
def test_sparse_counts_hold_what_the_dense_did(dense: npt.NDArray[np.int64], data: st.DataObject) -> None:
    places = st.tuples(*(st.integers(0, size - 1) for size in dense.shape))
    for place, number in data.draw(st.dictionaries(places, st.integers(1, 2**32 - 1), max_size=20)).items():
        dense[place] = number
    block = CountsBlock.from_dense(np.arange(len(dense)), dense)
    assert np.all(block.counts > 0)
    assert block.starts.tolist()[-1] == np.count_nonzero(dense)
    np.testing.assert_array_equal(CountsBlock.decode(block.encode()).dense(), dense)


def test_counts_cut_in_three_join_to_the_whole() -> None:
    dense, steps = dense_counts(6, 2), np.arange(6) * 25
    parts = [CountsBlock.from_dense(steps[part], dense[part]) for part in (slice(0, 1), slice(1, 4), slice(4, 6))]
    joined = CountsBlock.join(parts)
    np.testing.assert_array_equal(joined.dense(), dense)
    np.testing.assert_array_equal(joined.steps, steps)
    assert CountsBlock.decode(joined.encode()).encode() == CountsBlock.from_dense(steps, dense).encode()


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 150), (25, 75), (26, 75), (25, 76), (0, 1), (1, 25), (200, 300), (75, 25)]
)
def test_counts_between_are_those_of_the_steps_asked_for(start: int, stop: int) -> None:
    dense, steps = dense_counts(6, 2), np.arange(6) * 25
    part = CountsBlock.from_dense(steps, dense).between(start, stop)
    wanted = [place for place, step in enumerate(steps.tolist()) if start <= step < stop]
    assert part.steps.tolist() == steps[wanted].tolist()
    np.testing.assert_array_equal(part.dense(), dense[wanted])


def test_the_counts_of_one_layer() -> None:
    dense = dense_counts(4, 3)
    block = CountsBlock.from_dense(np.arange(4), dense)
    for layer in range(3):
        step, number = np.nonzero(dense[:, layer])
        told_step, told_number, told_count = block.of_layer(layer)
        assert told_step.tolist() == step.tolist()
        assert told_number.tolist() == number.tolist()
        assert told_count.tolist() == dense[step, layer, number].tolist()


@pytest.mark.parametrize("kind", [StatisticsBlock, CountsBlock])
def test_no_blocks_can_not_be_joined(kind: type[StatisticsBlock] | type[CountsBlock]) -> None:
    with pytest.raises(ValueError, match="at least one array"):
        kind.join([])


#: Written by the first form of `pack`: statistics 0, ⅛, … 1¼ and +Inf [2, 2, 3], and counts of two steps and a layer.
FIRST_FORM_STATISTICS = base64.b64decode(
    "R1BCMXpKFZciAAAAW1siPGk4IiwgWzNdXSwgWyI8ZjQiLCBbMiwgMiwgM11dXSi1L/0gSAUBANAAAgQAgMAAIEBggJCggAA+Pj4/Pz8/Pz8/fwEAm4AI"
)
FIRST_FORM_COUNTS = base64.b64decode(
    "R1BCMUTsMaFGAAAAW1siPGk4IiwgWzJdXSwgWyI8aTgiLCBbMV1dLCBbIjx1MiIsIFsyXV0sIFsiPHUyIiwgWzJdXSwgWyI8dTQiLCBbMl1dXSi1"
    "L/0gKN0AAIgABAABAAH4AAMDBQAAAAAAAAMALEGAAR9gCA=="
)


@pytest.mark.parametrize("statistics", [None, [1], [1, 0], []])
def test_the_first_form_is_still_read(statistics: list[int] | None) -> None:
    expected = (np.arange(12).reshape(2, 2, 3) / 8).astype(np.float32)
    expected[1, 1, 2] = np.inf
    read = StatisticsBlock.decode(FIRST_FORM_STATISTICS, statistics)
    assert read.steps.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(read.values, expected if statistics is None else expected[statistics])


def test_counts_of_the_first_form_are_still_read() -> None:
    dense = CountsBlock.decode(FIRST_FORM_COUNTS).dense()
    assert {tuple(place): int(dense[tuple(place)]) for place in np.argwhere(dense).tolist()} == {
        (0, 0, 0): 3,
        (1, 0, 1016): 5,
    }


def test_every_bit_of_the_first_form_is_guarded() -> None:
    for place, bit in itertools.product(range(len(FIRST_FORM_COUNTS)), range(8)):
        with pytest.raises(CorruptBlock):
            unpack(damaged(FIRST_FORM_COUNTS, place, 1 << bit))


def test_one_statistic_is_read_without_the_others() -> None:
    block = statistics_block(np.arange(50))
    packed = block.encode()
    whole = StatisticsBlock.decode(packed)
    for chosen in ([3], [0, 6], [5, 2]):
        read = StatisticsBlock.decode(packed, chosen)
        assert same_bits(read.steps, block.steps)
        assert same_bits(read.values, whole.values[chosen])
    # Damage to the last statistic's frame, which ends the block, is seen by those who read it.
    broken = damaged(packed, len(packed) - 1, 1)
    assert same_bits(StatisticsBlock.decode(broken, [0]).values, whole.values[[0]])
    with pytest.raises(CorruptBlock):
        StatisticsBlock.decode(broken, [6])
