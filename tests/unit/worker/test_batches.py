"""The order of the data: every sample once an epoch, every batch full, the same for the same seed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.batches import Batches, initialization_generator
from worker.data import Dataset

CPU = torch.device("cpu")


def numbered(count: int) -> Dataset:
    """Each sample's first pixel and label are its number."""
    numbers = torch.arange(count)
    images = torch.zeros(count, 784)
    images[:, 0] = numbers
    return Dataset("numbered", images, numbers, images[:1], numbers[:1], sha256=None)


def order(count: int, batch: int, seed: int, batches: int) -> list[int]:
    data = Batches(numbered(count), batch, seed, CPU)
    drawn: list[int] = []
    for _ in range(batches):
        images, labels = data.next()
        assert images.shape == (batch, 784)
        assert images[:, 0].tolist() == labels.tolist()
        drawn += labels.tolist()
    return drawn


@given(st.integers(1, 40), st.integers(1, 100), st.integers(0, 2**63 - 1))
def test_every_epoch_is_a_permutation_and_every_batch_is_full(count: int, batch: int, seed: int) -> None:
    batches = 3 * count // batch + 2
    drawn = order(count, batch, seed, batches)
    assert len(drawn) == batches * batch
    for start in range(0, len(drawn) - count + 1, count):
        assert sorted(drawn[start : start + count]) == list(range(count))


def test_epochs_are_shuffled_afresh() -> None:
    drawn = order(50, 25, 0, 8)
    epochs = {tuple(drawn[start : start + 50]) for start in range(0, 200, 50)}
    assert len(epochs) == 4
    assert tuple(range(50)) not in epochs


@pytest.mark.parametrize("batch", [1, 7, 30, 64])
def test_the_batch_size_does_not_change_the_order(batch: int) -> None:
    whole = order(30, 30, 5, 20)
    drawn = order(30, batch, 5, 5)
    assert drawn == whole[: len(drawn)]


def test_the_order_is_the_seeds() -> None:
    assert order(40, 8, 1, 10) == order(40, 8, 1, 10)
    assert order(40, 8, 1, 10) != order(40, 8, 2, 10)


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    first = order(40, 8, 1, 10)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert order(40, 8, 1, 10) == first
    assert torch.equal(before, torch.get_rng_state())


def test_order_and_initial_weights_are_drawn_from_different_streams() -> None:
    permutation = torch.randperm(40, generator=initialization_generator(1)).tolist()
    assert order(40, 40, 1, 1) != permutation


def test_samples_are_copies() -> None:
    dataset = numbered(4)
    Batches(dataset, 2, 0, CPU).next()[0].fill_(9.0)
    assert torch.equal(dataset.train_images[:, 0], torch.arange(4.0))


@pytest.mark.parametrize("stop", [0, 1, 40, 64, 65, 130])
def test_what_crosses_ahead_is_the_same_order_and_goes_on_from_anywhere(stop: int) -> None:
    """As on a GPU, where the positions of 64 batches cross at once; of 7 they are more than two epochs of 200."""
    plain, ahead = (Batches(numbered(200), 7, 3, CPU, ahead=ahead) for ahead in (False, True))
    for _ in range(stop):
        assert torch.equal(plain.next()[1], ahead.next()[1])
    assert all(torch.equal(value, plain.state()[name]) for name, value in ahead.state().items())
    resumed = Batches(numbered(200), 7, 3, CPU, ahead=True)
    resumed.next()
    resumed.restore(ahead.state())
    for _ in range(100):
        expected = plain.next()[1].clone()
        assert torch.equal(expected, ahead.next()[1])
        assert torch.equal(expected, resumed.next()[1])
