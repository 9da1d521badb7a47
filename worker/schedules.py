"""Learning rates in closed form: a function of the iteration alone, so that a resumed run has nothing to restore."""

import math

from torch import optim

from gradprobe.spec import AnyOptimizer, AnySchedule, CosineSchedule, LinearWarmUpSchedule, StepSchedule


def factor(schedule: AnySchedule, step: int, iterations: int) -> float:
    """What the learning rate is multiplied by at the iteration `step` of 0 … iterations − 1."""
    match schedule:
        case CosineSchedule():
            progress = step / max(1, iterations - 1)
            return schedule.final_factor + (1.0 - schedule.final_factor) * (1.0 + math.cos(math.pi * progress)) / 2.0
        case StepSchedule():
            return float(schedule.factor ** (step // schedule.every))
        case LinearWarmUpSchedule():
            return min(1.0, (step + 1) / schedule.iterations)
        case _:
            return 1.0


def apply(optimizer: optim.Optimizer, spec: AnyOptimizer, step: int, iterations: int) -> float:
    """Set the learning rate of this iteration, and return it."""
    learning_rate = spec.learning_rate * factor(spec.schedule, step, iterations)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    return learning_rate
