"""A module that is nothing but dense layers and activations in a row, run as one node of the autograd graph.

It calls the same kernels on the same tensors as its modules would, so that a training is the same to the bit; but h and
δ of every layer are at hand, and no hook is needed to have them. Wherever somebody could tell the difference (a hook on
one of its modules, autocast, a tracer, a second derivative), the modules themselves run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from types import MethodType
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.modules import module as modules

from gradprobe.probe.following import Pass

linear: Final[Callable[[Tensor, Any, Any], Tensor]] = functional.linear
_aten: Final = torch.ops.aten


def _bare(operator: Any) -> Callable[..., Tensor]:
    """An operator without the Python around it, which takes as long as a small tensor's kernel."""
    found: Callable[..., Tensor] = getattr(operator, "_op", operator)
    return found


_hooks_of_saved_tensors: Final[Callable[[bool], Any]] = torch._C._autograd._top_saved_tensors_default_hooks
_HOOKS: Final = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True, slots=True)
class _Activation:
    """φ as its module computes it, and its derivative as autograd does: from h where `by_output`, else from z.

    Where z is not needed h takes its place in memory.
    """

    of: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor]
    by_output: bool


def _relu(_module: nn.ReLU) -> _Activation:
    back = _bare(_aten.threshold_backward.default)
    return _Activation(torch.relu_, lambda delta, h: back(delta, h, 0), True)


def _leaky_relu(module: nn.LeakyReLU) -> _Activation:
    back = _bare(_aten.leaky_relu_backward.default)
    return _Activation(
        lambda z: functional.leaky_relu(z, module.negative_slope),
        lambda delta, z: back(delta, z, module.negative_slope, False),
        False,
    )


def _gelu(module: nn.GELU) -> _Activation:
    back = _bare(_aten.gelu_backward.default)
    return _Activation(
        lambda z: functional.gelu(z, approximate=module.approximate),
        lambda delta, z: back(delta, z, approximate=module.approximate),
        False,
    )


_ACTIVATIONS: Final[dict[type[nn.Module], Callable[[Any], _Activation]]] = {
    nn.Sigmoid: lambda _module: _Activation(torch.sigmoid_, _bare(_aten.sigmoid_backward.default), True),
    nn.Tanh: lambda _module: _Activation(torch.tanh_, _bare(_aten.tanh_backward.default), True),
    nn.ReLU: _relu,
    nn.LeakyReLU: _leaky_relu,
    nn.GELU: _gelu,
    nn.SiLU: lambda _module: _Activation(functional.silu, _bare(_aten.silu_backward.default), False),
}


@dataclass(slots=True)
class _Run:
    """One forward pass: what is measured of it, and who hears that its backward pass has begun."""

    activations: Sequence[_Activation | None]
    biases: Sequence[Tensor | None]
    found: Pass
    arrived: Callable[[list[Any]], None]
    differentiated_twice: Callable[[], None]


class _Node(torch.autograd.Function):
    """The whole chain's node: x, then L weights, then L biases go in."""

    @staticmethod
    def forward(ctx: Any, run: _Run, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.run = run
        activations, found = run.activations, run.found
        layers = len(activations)
        entries, outputs, inputs, h = [], found.outputs, found.inputs, x
        alike = inputs is outputs
        for activation, weight, bias in zip(activations, parameters[:layers], parameters[layers:], strict=True):
            entries.append(h)
            z = linear(h, weight, bias)
            h = z if activation is None else activation.of(z)
            outputs.append(h)
            if not alike:
                inputs.append(z if activation is not None and not activation.by_output else h)
        kept = [] if alike else inputs.copy()
        if alike and activations[-1] is not None:
            kept.append(h)
        # The output will have this node as its own: holding it here would be a circle.
        outputs[-1] = h.detach()
        if not alike and inputs[-1] is h:
            inputs[-1] = outputs[-1]
        ctx.save_for_backward(*entries, *parameters[:layers], *kept)
        return h

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        run, saved, wanted = ctx.run, ctx.saved_tensors, ctx.needs_input_grad
        activations, deltas = run.activations, run.found.deltas
        layers = len(activations)
        if torch.is_grad_enabled():
            run.differentiated_twice()
            return None, *_differentiable(run, saved[0], saved[layers : 2 * layers], gradients[0], wanted[1:])
        # Of a chain of activations that are known by what they put out that is what the next layer was given.
        kept = saved[2 * layers :] if len(saved) > 2 * layers + 1 else (*saved[1:layers], saved[-1])
        delta, place = gradients[0], layers
        found: list[Tensor | None] = [None] * (1 + 2 * layers)
        while place:
            place -= 1
            activation = activations[place]
            if activation is not None:
                delta = activation.back(delta, kept[place])
            deltas[place] = (delta,)
            if wanted[2 + place]:
                found[1 + place] = delta.mT.mm(saved[place])  # `t()` takes half a µs longer
            if wanted[2 + layers + place]:
                found[1 + layers + place] = delta.sum(0)
            if place or wanted[1]:
                delta = delta.mm(saved[layers + place])
        if wanted[1]:
            found[0] = delta
        run.arrived(deltas)
        return None, *found


#: `Function.apply` but for its search for functorch's wrappers among the arguments: in one of its transformations no
#: chain runs.
_apply: Final[Any] = super(torch.autograd.Function, _Node).apply


def _differentiable(
    run: _Run, x: Tensor, weights: Sequence[Tensor], delta: Tensor, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of x and the parameters, themselves with a graph: what `create_graph=True` asks for."""
    h = x
    for activation, weight, bias in zip(run.activations, weights, run.biases, strict=True):
        z = linear(h, weight, bias)
        h = z if activation is None else activation.of(z)
    given = zip((x, *weights, *run.biases), wanted, strict=True)
    inputs = [tensor for tensor, asked in given if asked and tensor is not None]
    found = iter(torch.autograd.grad(h, inputs, delta, create_graph=True))
    return [next(found) if asked else None for asked in wanted]


class Chain:
    """A chain's layers as they are now, and whether they may run as one node in this moment."""

    def __init__(self, module: nn.Sequential, flattens: bool, layers: list[nn.Linear], activations: list[Any]) -> None:
        self._children = list(module._modules.values())
        self._now = module._modules
        self._flattens = flattens
        self._layers = layers
        self._activations = activations
        #: All of them empty is what allows it.
        self._hooks = [getattr(child, kind) for child in self._children for kind in _HOOKS]
        self._hooks += [getattr(modules, f"_global{kind}") for kind in _HOOKS]
        self._parameters = [layer._parameters for layer in layers]
        self._inputs_are_outputs = all(activation is None or activation.by_output for activation in activations)
        self.given_up = False

    @classmethod
    def of(cls, module: nn.Module) -> Self | None:
        """The module as a chain; None where it is none, or where its own forward is not what would run."""
        if type(module) is not nn.Sequential or not _is_own(module) or not all(map(_is_plain, module.parameters())):
            return None
        children = list(module)
        flattens = bool(children) and type(children[0]) is nn.Flatten and _flattens_all(children[0])
        layers: list[nn.Linear] = []
        activations: list[_Activation | None] = []
        for child in children[flattens:]:
            if "forward" in vars(child):
                return None
            if type(child) is nn.Linear:
                layers.append(child)
                activations.append(None)
            elif type(child) in _ACTIVATIONS and layers and activations[-1] is None:
                activations[-1] = _ACTIVATIONS[type(child)](child)
            else:
                return None
        return cls(module, flattens, layers, activations) if layers else None

    @property
    def weights(self) -> list[Tensor | None]:
        """One a layer, in their order."""
        return [parameters["weight"] for parameters in self._parameters]

    def fits(self, x: Any) -> bool:
        """Whether nobody could tell this input's pass from that of the modules one by one."""
        return (
            type(x) is Tensor
            and (x.dim() == 2 or self._flattens)
            and x.is_cpu
            and not self.given_up
            and not any(self._hooks)
            and list(self._now.values()) == self._children
            and _nobody_looks()
        )

    def run(self, x: Tensor, arrived: Callable[[list[Any]], None]) -> tuple[Tensor, Pass]:
        """The chain's output [B, out] for x [B, in], and what is measured; δ follows with the backward pass.

        `arrived`: is given `Pass.deltas` when they are there. Raises what torch raises for an input that does not fit.
        """
        outputs: list[Tensor] = []
        found = Pass([None] * len(self._layers), outputs, outputs if self._inputs_are_outputs else [], x.shape[0])
        biases = [parameters["bias"] for parameters in self._parameters]
        run = _Run(self._activations, biases, found, arrived, self._give_up)
        output: Tensor = _apply(run, x.flatten(1) if self._flattens else x, *self.weights, *biases)
        return output, found

    def _give_up(self) -> None:
        """Derivatives of derivatives are the modules' own business, from the next step on."""
        self.given_up = True


class Forward:
    """Stands in for a module's forward, until it is removed; a copy of the module has its class's own again."""

    def __init__(self, module: nn.Module, run: Callable[..., Any]) -> None:
        self._module = module
        self._run = run
        update_wrapper(self, module.forward)
        vars(module)["forward"] = self

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return self._run(*inputs, **named)

    def remove(self) -> None:
        """Give the module its own back."""
        if vars(self._module).get("forward") is self:
            del vars(self._module)["forward"]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return MethodType(type(self._module).forward, memo.get(id(self._module), self._module))

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._module, "forward")  # of one that is being restored that is its class's


def _is_own(module: nn.Sequential) -> bool:
    """Whether its forward is its class's; a copy of a watched one has that as its own attribute."""
    own = vars(module).get("forward")
    return own is None or (own == MethodType(nn.Sequential.forward, module))


def _is_plain(parameter: nn.Parameter) -> bool:
    return type(parameter) is nn.Parameter and parameter.dtype is torch.float32 and parameter.device.type == "cpu"


def _flattens_all(module: nn.Flatten) -> bool:
    return module.start_dim == 1 and module.end_dim == -1


def _nobody_looks() -> bool:
    """Whether neither autocast nor a tracer, transformation or mode is at work."""
    return (
        torch.is_grad_enabled()
        and not torch._C._is_any_autocast_enabled()
        and not torch.compiler.is_compiling()
        and not torch._C._is_tracing()
        and _hooks_of_saved_tensors(False) is None
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._len_torch_function_stack()
    )
