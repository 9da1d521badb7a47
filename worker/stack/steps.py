"""From gradients to steps, of all members of a stack, a row each; compiled for this machine's CPU.

What torch's optimizers and `torch.nn.utils.clip_grad_*_` do, with torch's coefficients.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from worker.stack.vectors import compiled

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

#: Kinds of clipping.
UNCLIPPED, BY_NORM, BY_VALUE = range(3)
_FIRST_DECAY: Final = 0.9
_SECOND_DECAY: Final = 0.999
_SMOOTHING: Final = np.float32(0.99)
_EPSILON: Final = np.float32(1e-8)


@compiled
def clip(gradients: Floats, kinds: Integers, limits: Doubles) -> None:
    """Each member's gradients [M, P] within its own bound, as `torch.nn.utils.clip_grad_*_` do it."""
    for member in range(gradients.shape[0]):
        row = gradients[member]
        if kinds[member] == BY_NORM:
            squares = 0.0
            for i in range(row.shape[0]):
                squares += np.float64(row[i]) * np.float64(row[i])
            share = limits[member] / (math.sqrt(squares) + 1e-6)
            # Where it is NaN, that is what the gradients become.
            factor = np.float32(1.0 if share > 1.0 else share)
            for i in range(row.shape[0]):
                row[i] *= factor
        elif kinds[member] == BY_VALUE:
            most = np.float32(limits[member])
            for i in range(row.shape[0]):
                if row[i] > most:
                    row[i] = most
                elif row[i] < -most:
                    row[i] = -most


@compiled
def decay(parameters: Floats, gradients: Floats, decays: Doubles, spared: int) -> None:
    """Weight decay as part of the gradient, of all parameters but the last `spared` of each row."""
    for member in range(parameters.shape[0]):
        if decays[member] != 0.0:
            share = np.float32(decays[member])
            for i in range(parameters.shape[1] - spared):
                gradients[member, i] += share * parameters[member, i]


@compiled
def decay_decoupled(parameters: Floats, rates: Doubles, decays: Doubles, spared: int) -> None:
    """Weight decay beside the gradient (Loshchilov & Hutter 2019)."""
    for member in range(parameters.shape[0]):
        if decays[member] != 0.0:
            kept = np.float32(1.0 - rates[member] * decays[member])
            for i in range(parameters.shape[1] - spared):
                parameters[member, i] *= kept


@compiled
def adam(parameters: Floats, gradients: Floats, first: Floats, second: Floats, rates: Doubles, steps: Integers) -> None:
    """One step of Adam (Kingma & Ba 2015) with torch's coefficients; `steps` [M] count this one."""
    for member in range(parameters.shape[0]):
        row, slope, mean, square = parameters[member], gradients[member], first[member], second[member]
        step = np.float64(steps[member])
        rate = np.float32(rates[member] / (1.0 - _FIRST_DECAY**step))
        scale = np.float32(1.0 / math.sqrt(1.0 - _SECOND_DECAY**step))
        for i in range(row.shape[0]):
            g = slope[i]
            mean[i] += np.float32(0.1) * (g - mean[i])
            square[i] = np.float32(0.999) * square[i] + np.float32(0.001) * g * g
            row[i] -= rate * mean[i] / (np.sqrt(square[i]) * scale + _EPSILON)


@compiled
def rmsprop(parameters: Floats, gradients: Floats, square: Floats, rates: Doubles) -> None:
    """One step of RMSprop (Hinton 2012) with torch's coefficients."""
    for member in range(parameters.shape[0]):
        row, slope, mean = parameters[member], gradients[member], square[member]
        rate = np.float32(rates[member])
        for i in range(row.shape[0]):
            g = slope[i]
            mean[i] = _SMOOTHING * mean[i] + np.float32(0.01) * g * g
            row[i] -= rate * g / (np.sqrt(mean[i]) + _EPSILON)


@compiled
def descend(parameters: Floats, gradients: Floats, rates: Doubles) -> None:
    """One step of stochastic gradient descent."""
    for member in range(parameters.shape[0]):
        rate = np.float32(rates[member])
        for i in range(parameters.shape[1]):
            parameters[member, i] -= rate * gradients[member, i]


@compiled
def descend_with_momentum(
    parameters: Floats, gradients: Floats, velocity: Floats, rates: Doubles, momentum: float, nesterov: bool
) -> None:
    """The same with momentum, Nesterov's where asked for, as torch defines them."""
    for member in range(parameters.shape[0]):
        row, slope, moving = parameters[member], gradients[member], velocity[member]
        rate, share = np.float32(rates[member]), np.float32(momentum)
        for i in range(row.shape[0]):
            moving[i] = share * moving[i] + slope[i]
            row[i] -= rate * (slope[i] + share * moving[i] if nesterov else moving[i])
