"""Where a module's weight layers are in the autograd graph of its output, whatever the module is made of.

Nothing is asked of the module but its parameters: a layer is a weight of two dimensions or more, and the node that
multiplies with it; what comes between two layers is told by the nodes between them. So `nn.Linear` and
`functional.linear` are alike, and attention's own projections are found too. The survey is made once; later steps are
followed along the same edges.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

Node = Any  # torch's own types of nodes are made at run time

#: Nodes that multiply by a weight, and the attribute with what they multiply it with.
_PRODUCTS: Final = {
    "AddmmBackward0": "_saved_mat1",
    "MmBackward0": "_saved_self",
    "ConvolutionBackward0": "_saved_input",
    "LinearBackward0": "_saved_input",
}
#: What may be between a weight and its product, or between z and its activation, and changes no number.
_VIEWS: Final = frozenset(
    {
        "AliasBackward0",
        "CloneBackward0",
        "PermuteBackward0",
        "ReshapeAliasBackward0",
        "SqueezeBackward0",
        "SqueezeBackward1",
        "TBackward0",
        "ToCopyBackward0",
        "TransposeBackward0",
        "UnsafeViewBackward0",
        "UnsqueezeBackward0",
        "ViewBackward0",
    }
)
_NORMALIZATIONS: Final = {
    "NativeBatchNormBackward0": "batch",
    "CudnnBatchNormBackward0": "batch",
    "NativeLayerNormBackward0": "layer",
}
#: An activation's node, its name in a spec, what it saved, and whether that is h (or z).
_ACTIVATIONS: Final = {
    "ReluBackward0": ("relu", "_saved_result", True),
    "SigmoidBackward0": ("sigmoid", "_saved_result", True),
    "TanhBackward0": ("tanh", "_saved_result", True),
    "GeluBackward0": ("gelu", "_saved_self", False),
    "SiluBackward0": ("silu", "_saved_self", False),
    "SoftplusBackward0": ("softplus", "_saved_self", False),
    "HardtanhBackward0": ("hardtanh", "_saved_self", False),
    "LeakyReluBackward0": ("leaky_relu", "_saved_self", False),
    "EluBackward0": ("elu", "_saved_self", False),
    "LeakyReluBackward1": ("leaky_relu", "_saved_result", True),  # in its place
    "EluBackward1": ("elu", "_saved_result", True),
}
#: h of z, with what the node kept of the module's arguments.
_FUNCTIONS: Final[dict[str, Callable[[Tensor, Node], Tensor]]] = {
    "GeluBackward0": lambda z, node: functional.gelu(z, approximate=node._saved_approximate),
    "SiluBackward0": lambda z, _node: functional.silu(z),
    "SoftplusBackward0": lambda z, node: functional.softplus(z, node._saved_beta, node._saved_threshold),
    "HardtanhBackward0": lambda z, node: functional.hardtanh(z, node._saved_min_val, node._saved_max_val),
    "LeakyReluBackward0": lambda z, node: functional.leaky_relu(z, node._saved_negative_slope),
    "EluBackward0": lambda z, node: torch.ops.aten.elu(
        z, node._saved_alpha, node._saved_scale, node._saved_input_scale
    ),
}
_SELU_SCALE: Final = 1.0507009873554805


@dataclass(slots=True)
class Activation:
    """What follows a layer: its name in a spec, and how its output h is had from its node."""

    name: str
    node: Node
    attribute: str
    holds_output: bool
    negative_slope: float = 0.0

    def values(self, node: Node) -> tuple[Tensor, Tensor]:
        """(h, z) of a step's node; z is h itself where the node saved h alone."""
        saved: Tensor = getattr(node, self.attribute)
        if self.holds_output:
            return saved, saved
        z = saved.detach()
        return _FUNCTIONS[node.name()](z, node), z


@dataclass(slots=True)
class Layer:
    """One weight layer: the parameter, its product's node, and the activation after it."""

    name: str
    weight: nn.Parameter
    node: Node
    bias: Tensor | None = None
    activation: Activation | None = None
    #: Between this layer's activation and the next layer: `normalization`, `dropout`; or why it is no plain chain.
    between: list[str] = field(default_factory=list)
    broken: str | None = None
    #: The number of the root that is this layer's output, where it is one.
    root: int | None = None

    @property
    def entry(self) -> Tensor | None:
        """What the weight was multiplied with in this step."""
        found = getattr(self.node, _PRODUCTS[self.node.name()], None)
        return found if isinstance(found, Tensor) else None


@dataclass(slots=True)
class Survey:
    """All layers that a graph has, in the order of execution, and those of the module that can't be measured."""

    layers: list[Layer]
    left_out: list[str]
    parents: Mapping[Node, list[tuple[Node | None, int]]]


def tensors_in(output: Any) -> list[Tensor]:
    """The tensors of a module's output that a backward pass can begin at; of containers what they hold."""
    if isinstance(output, Tensor):
        return [output] if output.grad_fn is not None else []
    if isinstance(output, Mapping):
        return [tensor for item in output.values() for tensor in tensors_in(item)]
    if isinstance(output, (list, tuple)):
        return [tensor for item in output for tensor in tensors_in(item)]
    return []


def survey(module: nn.Module, roots: Sequence[Tensor]) -> Survey:
    """Find the weight layers in the graph behind these tensors."""
    parents = _parents(roots)
    leaves = {id(node.variable): node for node in parents if hasattr(node, "variable")}
    layers, left_out = [], []
    for name, parameter in module.named_parameters():
        if parameter.dim() < 2:
            continue
        told = name.removesuffix(".weight")
        reason, node = _product(parameter, leaves.get(id(parameter)), parents)
        if reason is not None:
            left_out.append(f"{told}: {reason}")
        else:
            layers.append(Layer(told, parameter, node))
    layers.sort(key=lambda layer: layer.node._sequence_nr())
    products = {layer.node: layer for layer in layers}
    for layer in layers:
        layer.bias = _bias(layer.node)
        _look_ahead(layer, parents, products)
    return Survey(layers, left_out, parents)


def _parents(roots: Sequence[Tensor]) -> dict[Node, list[tuple[Node | None, int]]]:
    """Of every node in the graph those that lead to it, and by which edge; of a root (None, its number)."""
    found: dict[Node, list[tuple[Node | None, int]]] = {}
    waiting: list[Node] = []
    for number, root in enumerate(roots):
        if root.grad_fn not in found:
            waiting.append(root.grad_fn)
        found.setdefault(root.grad_fn, []).append((None, number))
    while waiting:
        node = waiting.pop()
        for index, (child, _) in enumerate(node.next_functions):
            if child is None:
                continue
            if child not in found:
                found[child] = []
                waiting.append(child)
            found[child].append((node, index))
    return found


def _product(
    parameter: nn.Parameter, leaf: Node | None, parents: Mapping[Node, list[tuple[Node | None, int]]]
) -> tuple[str | None, Node | None]:
    """Why the weight can't be measured, or the one node that multiplies with it."""
    if not parameter.requires_grad:
        return "it is frozen", None
    if parameter.dtype != torch.float32:
        return f"its weight is {parameter.dtype}; only float32 is measured", None
    if leaf is None:
        return "it took no part in the first step, or where autograd shows nothing (compiled, checkpointed)", None
    products, others = _uses(leaf, parents)
    if others or not products:
        return f"its weight goes through {others[0] if others else 'nothing'}, not a product", None
    if len(products) > 1:
        return f"its weight is used {len(products)} times in a step, so it has no output gradient of its own", None
    return None, products[0]


def _uses(leaf: Node, parents: Mapping[Node, list[tuple[Node | None, int]]]) -> tuple[list[Node], list[str]]:
    """The products that a weight goes into, through nothing but views; and what else it goes into."""
    products, others, waiting = [], [], [leaf]
    while waiting:
        for parent, _ in parents[waiting.pop()]:
            name = "the output" if parent is None else parent.name()
            if name in _PRODUCTS:
                products.append(parent)
            elif name in _VIEWS:
                waiting.append(parent)
            else:
                others.append(name)
    return products, others


def _bias(node: Node) -> Tensor | None:
    for child, _ in node.next_functions:
        variable = getattr(child, "variable", None)
        if variable is not None and variable.dim() == 1:
            found: Tensor = variable
            return found
    return None


def _look_ahead(
    layer: Layer, parents: Mapping[Node, list[tuple[Node | None, int]]], products: Mapping[Node, Layer]
) -> None:
    """The activation after a layer, and what else comes until the next layer or the output."""
    node = layer.node
    while layer.broken is None:
        leading = parents[node]
        if len(leading) != 1:
            layer.broken = f"the output of {layer.name} goes {len(leading)} ways"
            return
        parent, edge = leading[0]
        if parent is None:
            layer.between.append("output")
            layer.root = edge
            return
        if parent in products:
            layer.between.append("next layer")
            if parents_of_weight(parent, edge):
                layer.broken = f"the output of {layer.name} is used as a weight"
            return
        _pass(layer, parent, edge)
        node = parent


def parents_of_weight(node: Node, edge: int) -> bool:
    """Whether this edge of a product leads to its weight and not to what enters it."""
    entry = {"AddmmBackward0": 1, "MmBackward0": 0, "ConvolutionBackward0": 0, "LinearBackward0": 0}[node.name()]
    return edge != entry


def _pass(layer: Layer, node: Node, edge: int) -> None:
    name = node.name()
    if name in _VIEWS or (name == "AddBackward0" and _adds_bias(node, edge)):
        return
    if name in _ACTIVATIONS and layer.activation is None and _is_known(node):
        layer.activation = _activation(node)
        layer.between.append("activation")
    elif name in _NORMALIZATIONS and edge == 0:
        layer.between.append(_NORMALIZATIONS[name])
    elif name in ("NativeDropoutBackward0",) or (name == "MulBackward0" and node.next_functions[1 - edge][0] is None):
        layer.between.append("dropout")
    else:
        layer.broken = f"after {layer.name} comes {name.removesuffix('Backward0')}"


def _adds_bias(node: Node, edge: int) -> bool:
    other = node.next_functions[1 - edge][0]
    variable = getattr(other, "variable", None)
    return variable is not None and variable.dim() == 1


def _is_known(node: Node) -> bool:
    """Whether a hard tanh is one, or the ReLU with a ceiling (ReLU6) that has the same node."""
    if node.name() != "HardtanhBackward0":
        return True
    floor, ceiling = float(node._saved_min_val), float(node._saved_max_val)
    return (floor, ceiling) == (-1.0, 1.0) or (floor == 0.0 < ceiling)


def _activation(node: Node) -> Activation:
    name, attribute, holds = _ACTIVATIONS[node.name()]
    slope = 0.0
    if name == "leaky_relu":
        slope = float(node._saved_negative_slope)
    if name == "hardtanh" and float(node._saved_min_val) == 0.0:
        name = "relu"
    if name == "elu" and abs(float(node._saved_scale) - _SELU_SCALE) < 1e-6:
        name = "selu"
    return Activation(name, node, attribute, holds, slope)


@dataclass(slots=True)
class Route:
    """The same nodes in the next step's graph: from the roots along the edges that led to them in the first."""

    #: (which found node leads here, or −1 − root's number; the edge; the type that a node must have), in order.
    moves: list[tuple[int, int, type]]
    #: Positions in the found nodes, of the layers' products and of the activations that are wanted.
    products: list[int]
    activations: list[int]

    @classmethod
    def to(cls, found: Survey, activations: Sequence[Node | None]) -> "Route":
        """The way to every layer's product, and to these activations (None: not wanted, position −1)."""
        places: dict[Node, int] = {}
        moves: list[tuple[int, int, type]] = []
        for node in [*(layer.node for layer in found.layers), *(node for node in activations if node is not None)]:
            for here, leading, edge in reversed(list(_way(node, found.parents, places))):
                place = -1 - edge if leading is None else places[leading]
                moves.append((place, edge, type(here)))
                places[here] = len(moves) - 1
        return cls(
            moves,
            [places[layer.node] for layer in found.layers],
            [-1 if node is None else places[node] for node in activations],
        )

    def follow(self, roots: Sequence[Tensor]) -> list[Node] | None:
        """This step's nodes in the order of `moves`; None where the graph is another one."""
        nodes: list[Node] = []
        append = nodes.append
        try:
            for place, edge, kind in self.moves:
                node = roots[-1 - place].grad_fn if place < 0 else nodes[place].next_functions[edge][0]
                if type(node) is not kind:
                    return None
                append(node)
        except IndexError:
            return None
        return nodes


def _way(
    node: Node, parents: Mapping[Node, list[tuple[Node | None, int]]], known: Mapping[Node, int]
) -> Iterator[tuple[Node, Node | None, int]]:
    """From a node up to one that is known, or to a root: (node, what leads to it, by which edge)."""
    here: Node | None = node
    while here is not None and here not in known:
        # The shortest way up is found breadth first only where it matters; any way leads to a root.
        leading, edge = parents[here][0]
        yield here, leading, edge
        here = leading
