"""The mean of paired differences with its interval: Student's t (Student 1908, *The probable error of a mean*).

With as few pairs as there are seeds a bootstrap would resample three numbers; t's quantile says what so few are worth.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

MOST_PAIRS: Final = 20
CONFIDENCE: Final = 0.95
#: The 97.5 % quantile of Student's t with 1, 2, … degrees of freedom; a test integrates the density up to each.
_QUANTILES: Final = (
    12.70620, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216, 2.22814,
    2.20099, 2.17881, 2.16037, 2.14479, 2.13145, 2.11991, 2.10982, 2.10092, 2.09302,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference; `low` and `high` bound it at 95 %, None with a single pair."""

    mean: float
    low: float | None
    high: float | None
    pairs: int

    def document(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def paired(differences: Sequence[float]) -> Interval | None:
    """Of up to 20 finite differences; None of none."""
    number = len(differences)
    if not number:
        return None
    mean = math.fsum(differences) / number
    if number == 1:
        return Interval(mean, None, None, 1)
    variance = math.fsum((difference - mean) ** 2 for difference in differences) / (number - 1)
    half = quantile(number - 1) * math.sqrt(variance / number)
    return Interval(mean, mean - half, mean + half, number)


def quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t with 1 to 19 degrees of freedom."""
    return _QUANTILES[degrees - 1]
