"""From captured elements to statistics, many steps at a time. Definitions: `gradprobe.statistics`.

Elements are float32 [S, N]; sums run in float64, because squares of a starved layer's gradients underflow float32 and
because a mean near zero is a difference of large sums. Results are float64.

Where all elements are finite, which is looked up on the host, less is to be done for the same bits. With `looking` off
nothing is looked up, so that what is called can be captured as part of a CUDA graph.
"""

import torch
from torch import Tensor

from gradprobe.histogram import (
    BINS,
    NOT_A_NUMBER,
    POSITIVE_SUBNORMAL,
    SHIFT,
    SIGN,
    ZERO,
)

_CHUNK_ELEMENTS = 1 << 20
#: Where nothing is looked up: float64 of so many elements takes a device 128 MiB.
_UNSEEN_ELEMENTS = 1 << 24
_NAN = float("nan")


def distribution(elements: Tensor, looking: bool = True) -> Tensor:
    """`statistics.DISTRIBUTION` of each row of elements [S, N]: float64 [7, S]."""
    if looking:
        return torch.cat([_distribution(chunk) for chunk in _chunks(elements)], dim=1)
    return torch.cat([_unseen_distribution(chunk) for chunk in _chunks(elements, _UNSEEN_ELEMENTS)], dim=1)


def _chunks(elements: Tensor, most: int = _CHUNK_ELEMENTS) -> tuple[Tensor, ...]:
    return tuple(torch.split(elements, max(1, most // max(1, elements.shape[1]))))


def _distribution(elements: Tensor) -> Tensor:
    wide = elements.double()
    magnitude = wide.abs()
    count = torch.full((len(wide),), wide.shape[1], dtype=torch.float64, device=wide.device)
    zeros = (wide == 0).sum(1).double()
    total = magnitude.sum(1)
    finite_rows = total.isfinite()
    if not bool(finite_rows.all()):
        return _masked_distribution(wide)
    mean = wide.sum(1) / count
    std = ((wide - mean[:, None]).square_().sum(1) / count).sqrt_()
    norm = magnitude.square().sum(1).sqrt_()
    nothing = torch.zeros_like(total)
    return torch.stack([total / count, mean, std, norm, magnitude.amax(1), zeros / count, nothing])


def _masked_distribution(wide: Tensor) -> Tensor:
    # The same operations as above, so that a row's numbers don't hang on what else is in its chunk.
    finite = wide.isfinite()
    count = finite.sum(1).double()
    values = torch.where(finite, wide, 0.0)
    magnitude = values.abs()
    mean = values.sum(1) / count
    deviation = torch.where(finite, values - mean[:, None], 0.0)
    rows = torch.stack(
        [
            magnitude.sum(1) / count,
            mean,
            (deviation.square().sum(1) / count).sqrt(),
            magnitude.square().sum(1).sqrt(),
            magnitude.amax(1),
            (wide == 0).sum(1) / count,
        ]
    )
    rows[:, count == 0] = _NAN
    return torch.cat([rows, (wide.shape[1] - count)[None]])


def _unseen_distribution(elements: Tensor) -> Tensor:
    # As few ways through the memory as can be: on a GPU they are what it takes.
    finite = elements.isfinite()
    count = finite.sum(1).double()
    values = torch.where(finite, elements, 0.0)
    wide = values.double()
    mean = wide.sum(1) / count
    deviation = torch.where(finite, wide - mean[:, None], 0.0)
    rows = torch.stack(
        [
            torch.linalg.vector_norm(wide, 1, dim=1) / count,
            mean,
            torch.linalg.vector_norm(deviation, dim=1) / count.sqrt(),
            torch.linalg.vector_norm(wide, dim=1),
            torch.linalg.vector_norm(values, torch.inf, dim=1).double(),
            (elements == 0).sum(1) / count,
        ]
    )
    return torch.cat([torch.where(count == 0, _NAN, rows), (elements.shape[1] - count)[None]])


def norm(elements: Tensor, looking: bool = True) -> Tensor:
    """√Σx² of each row, [S, N] → float64 [S]; not finite where an element isn't."""
    if looking:
        return torch.cat([chunk.double().square_().sum(1).sqrt_() for chunk in _chunks(elements)])
    return torch.cat([torch.linalg.vector_norm(c.double(), dim=1) for c in _chunks(elements, _UNSEEN_ELEMENTS)])


def update_ratio(before: Tensor, after: Tensor, looking: bool = True) -> Tensor:
    """‖after − before‖ / ‖before‖ of each row, over the elements finite before: [S, N] twice → float64 [S].

    0 where both norms are 0; not finite where the step made an element so; NaN where no element was finite before.
    """
    most = _CHUNK_ELEMENTS if looking else _UNSEEN_ELEMENTS
    kind = _update_ratio if looking else _unseen_update_ratio
    pairs = zip(_chunks(before, most), _chunks(after, most), strict=True)
    return torch.cat([kind(old.double(), new.double()) for old, new in pairs])


def _update_ratio(old: Tensor, new: Tensor) -> Tensor:
    change = new - old
    size = old.square().sum(1).sqrt_()
    if bool(size.isfinite().all()):
        changed = change.square_().sum(1).sqrt_()
        return torch.where(changed == 0, 0.0, changed / size)
    finite = old.isfinite()
    size = torch.where(finite, old, 0.0).square().sum(1).sqrt_()
    changed = torch.where(finite, change, 0.0).square().sum(1).sqrt_()
    ratio = torch.where(changed == 0, 0.0, changed / size)
    return torch.where(finite.any(1), ratio, _NAN)


def _unseen_update_ratio(old: Tensor, new: Tensor) -> Tensor:
    finite = old.isfinite()
    size = torch.linalg.vector_norm(torch.where(finite, old, 0.0), dim=1)
    changed = torch.linalg.vector_norm(torch.where(finite, new - old, 0.0), dim=1)
    ratio = torch.where(changed == 0, 0.0, changed / size)
    return torch.where(finite.any(1), ratio, _NAN)


def mean_and_std(elements: Tensor, looking: bool = True) -> Tensor:
    """Mean and standard deviation of each row's finite elements: [S, N] → float64 [2, S]."""
    return distribution(elements, looking)[1:3]


def share(chosen: Tensor, elements: Tensor) -> Tensor:
    """Share of the finite elements that are chosen: bool [S, N], float32 [S, N] → float64 [S]."""
    finite = elements.isfinite()
    return (chosen & finite).sum(1).double() / finite.sum(1).double()


def dead_fraction(activations: Tensor) -> Tensor:
    """Share of units that are exactly zero over the whole batch: [S, B, U] → float64 [S]; NaN if nothing is finite."""
    dead = (activations == 0).all(dim=1).double().mean(dim=1)
    return torch.where(activations.isfinite().flatten(1).any(1), dead, _NAN)


def histogram(elements: Tensor) -> Tensor:
    """Counts on the fixed grid of each row: [S, N] → int64 [S, 4096]."""
    return torch.cat([_histogram(chunk) for chunk in _chunks(elements)])


def _histogram(elements: Tensor) -> Tensor:
    row = torch.arange(len(elements), device=elements.device, dtype=torch.int64)[:, None] * BINS
    return torch.bincount((bins(elements) + row).flatten(), minlength=len(elements) * BINS).view(-1, BINS)


def bins(elements: Tensor) -> Tensor:
    """The bin on the fixed grid of each element, int32 of the same shape."""
    bits = elements.contiguous().view(torch.int32)
    numbers = (bits >> SHIFT) & (BINS - 1)
    magnitude = bits & 0x7FFFFFFF
    numbers = torch.where(magnitude < 0x00800000, (numbers & SIGN) | POSITIVE_SUBNORMAL, numbers)
    numbers = torch.where(magnitude == 0, ZERO, numbers)
    return torch.where(magnitude > 0x7F800000, NOT_A_NUMBER, numbers)
