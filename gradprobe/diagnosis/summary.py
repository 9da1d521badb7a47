"""A run's diagnosis in a few numbers, as tables of many runs tell it."""

from typing import Any

import numpy as np

from gradprobe.diagnosis.findings import Diagnosis, plain
from gradprobe.diagnosis.measurements import Measurements


def summarize(measured: Measurements, found: Diagnosis | None, version: int) -> dict[str, Any]:
    """The cause, and ‖δ₁‖ ÷ ‖δ_N‖ at the first recorded step and as the run's geometric mean.

    N is the output layer. A ratio is None where δ was not recorded, is zero or not finite; such steps are left out of
    the mean.
    """
    ratios = delta_ratios(measured)
    cause, failed = (found.cause, list(found.failed_rules)) if found is not None else (None, [])
    return {"version": version, "cause": cause, "failed_rules": failed, **ratios}


def delta_ratios(measured: Measurements) -> dict[str, float | None]:
    """`delta_ratio_initial` and `delta_ratio_mean`."""
    efolds = measured.log_delta
    if efolds is None or not efolds.shape[1]:
        return {"delta_ratio_initial": None, "delta_ratio_mean": None}
    first = efolds[0]
    finite = first[np.isfinite(first)]
    with np.errstate(over="ignore"):
        initial = np.exp(0.5 * first[0])
        mean = np.exp(0.5 * finite.mean()) if len(finite) else np.nan
    return {
        "delta_ratio_initial": plain(initial) if np.isfinite(first[0]) else None,
        "delta_ratio_mean": plain(mean),
    }
