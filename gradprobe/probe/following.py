"""Step after step to the same layers in the graphs of a module that is watched."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from gradprobe.errors import UnsupportedModule
from gradprobe.parts.watched import WatchedInputs, WatchedNetwork
from gradprobe.probe.describe import describe
from gradprobe.probe.graph import Layer, Route, Survey, survey, tensors_in

#: A module whose graph has more forms than this is not followed any further.
_MOST_ROUTES: Final = 8


@dataclass(slots=True)
class Pass:
    """One forward pass: h and z of each layer, and room for what its backward pass brings (tuples of one δ).

    `batch`: of a chain the size that all others follow from, and h and z are then float32 and contiguous; else 0.
    """

    deltas: list[Any]
    outputs: list[Tensor]
    inputs: list[Tensor]
    batch: int = 0


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a layer's h is had in each step: from its `activation`'s node, as a `root`, or not at all (`none`)."""

    source: str
    root: int = 0
    flat: bool = True


class Following:
    """The layers of one module: found in its first graph, followed in all later ones.

    Raises:
        UnsupportedModule: for a module of which autograd shows no layer.
    """

    def __init__(self, module: nn.Module, roots: Sequence[Tensor]) -> None:
        self._module = module
        found = survey(module, roots)
        if not found.layers:
            reasons = "; ".join(found.left_out[:3]) or "it has no weight of two dimensions or more"
            raise UnsupportedModule(
                f"no layer can be measured: {reasons}. A compiled module hides its layers from autograd: "
                "compile it with backend='eager', or watch it uncompiled."
            )
        self.network, self.inputs = _described(module, found)
        self.layers: list[Layer] = found.layers
        self.skipped: dict[str, int] = {}
        self._plans = [_plan(layer) for layer in found.layers]
        self._routes = [self._route(found)]
        self._nothing = torch.full((1, 1), float("nan"))
        _forget_graph(found)

    def follow(self, output: Any, at_last: Callable[[Any], None]) -> Pass | None:
        """Leave a hook on each layer's product in this graph, `at_last` on the last one's; None where there are none.

        The others' hooks are functions in C that keep δ: no Python runs for them in the backward pass.
        """
        roots = tensors_in(output)
        if not roots:
            return None
        nodes, route = self._find(roots)
        if route is None:
            return None
        deltas: list[Any] = [None] * len(self.layers)
        last = len(deltas) - 1
        found = Pass(deltas, *self._activations(route, nodes, roots))
        for index, place in enumerate(route.products):
            hook = partial(self._arrive, deltas, at_last) if index == last else partial(deltas.__setitem__, index)
            nodes[place].register_prehook(hook)
        return found

    @staticmethod
    def _arrive(deltas: list[Any], at_last: Callable[[Any], None], gradients: Any) -> None:
        deltas[-1] = gradients
        at_last(deltas)

    def _find(self, roots: Sequence[Tensor]) -> tuple[list[Any], Route | None]:
        for route in self._routes:
            nodes = route.follow(roots)
            if nodes is not None:
                return nodes, route
        if len(self._routes) >= _MOST_ROUTES:
            return self._skip("the graph keeps changing its form")
        found = survey(self._module, roots)
        by_weight = {id(layer.weight): layer for layer in found.layers}
        if any(id(layer.weight) not in by_weight for layer in self.layers):
            return self._skip("a layer that is measured took no part")
        found.layers = [by_weight[id(layer.weight)] for layer in self.layers]
        route = self._route(found)
        nodes = route.follow(roots)
        self._routes.append(route)
        _forget_graph(found)
        return (nodes, route) if nodes is not None else self._skip("the graph can't be followed")

    def _skip(self, reason: str) -> tuple[list[Any], None]:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        return [], None

    def _route(self, found: Survey) -> Route:
        wanted = [
            layer.activation.node if plan.source == "activation" and layer.activation is not None else None
            for layer, plan in zip(found.layers, self._plans, strict=True)
        ]
        return Route.to(found, wanted)

    def _activations(
        self, route: Route, nodes: Sequence[Any], roots: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        outputs: list[Tensor] = []
        inputs: list[Tensor] = []
        alike = True
        for layer, plan, place in zip(self.layers, self._plans, route.activations, strict=True):
            activation = layer.activation
            if activation is not None and place >= 0:
                if activation.holds_output:
                    h = z = getattr(nodes[place], activation.attribute)
                else:
                    h, z = activation.values(nodes[place])
                    alike = False
            elif plan.source == "root" and plan.root < len(roots):
                h = z = roots[plan.root].detach()
            else:
                h = z = self._nothing
            if plan.flat and h.dim() != 2:
                same = h is z
                h = h.reshape(-1, h.shape[-1])
                z = h if same else z.reshape(-1, z.shape[-1])
            outputs.append(h)
            inputs.append(z)
        return outputs, outputs if alike else inputs


def _described(module: nn.Module, found: Survey) -> tuple[WatchedNetwork, WatchedInputs]:
    if type(module).__name__ == "DistributedDataParallel":
        for layer in found.layers:
            layer.name = layer.name.removeprefix("module.")
    return describe(module, found)


def _plan(layer: Layer) -> _Plan:
    flat = layer.node.name() != "ConvolutionBackward0"
    if layer.activation is not None:
        return _Plan("activation", flat=flat)
    if layer.between == ["output"] and layer.root is not None:
        return _Plan("root", layer.root, flat)
    return _Plan("none")


def _forget_graph(found: Survey) -> None:
    """A node kept is a whole step's memory kept."""
    found.parents = {}
    for layer in found.layers:
        layer.node = None
        if layer.activation is not None:
            layer.activation.node = None
