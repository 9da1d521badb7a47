"""A training step as the list of kernels that it runs, to be run again without autograd and with next to no Python.

A small network's step is mostly the cost of calls: modules, autograd's bookkeeping, memory asked for and given back.
What the step computes is the same list of kernels every time. So one step is run as usual while a dispatch mode, below
autograd, notes each kernel with the very tensors that it read and wrote; later steps run the kernels on these tensors
again, in the same order, results written over the last step's. Equal kernels in equal order on equal numbers: the
results are bit-identical to a step that was not recorded. Views need no call at all, their memory is their base's.

That is sound only if the step does the same whatever its numbers are; a step that asks a tensor for a number, or
reads a tensor that nobody named, is refused.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Kernel = Any  # torch._ops.OpOverload, which torch does not type
_DEPENDS_ON_NUMBERS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Unrepeatable(Exception):
    """The step can't be run again from its kernels; the message says why."""


@dataclass(frozen=True, slots=True)
class Tape:
    """A step's kernels, each with its tensors."""

    calls: Sequence[Callable[[], object]]

    def play(self) -> None:
        """Run them: reads what the named tensors hold now, writes where the recorded step wrote."""
        with torch.inference_mode():
            for call in self.calls:
                call()


@dataclass(frozen=True, slots=True)
class _Call:
    kernel: Kernel
    arguments: Sequence[Any]
    keywords: Mapping[str, Any]
    results: Sequence[Any]


class Recorder(TorchDispatchMode):
    """Notes what runs in its `with` block; `tape` makes it repeatable."""

    def __init__(self, named: Sequence[Tensor], most_bytes: int) -> None:
        """`named` are all tensors that the step may read and has not made itself; `most_bytes` bound what is kept."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {id(tensor): tensor for tensor in named}
        self._calls: list[_Call | Callable[[], object]] = []
        self._most_bytes = most_bytes
        self._bytes = 0
        self._obstacle: str | None = None

    def __torch_dispatch__(
        self, kernel: Kernel, types: Any, arguments: Sequence[Any] = (), keywords: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the kernel as if nobody watched, and note it."""
        results = kernel(*arguments, **(keywords or {}))
        if self._obstacle is None:
            self._note(_Call(kernel, arguments, keywords or {}, results if isinstance(results, tuple) else (results,)))
        return results

    def tape(self) -> Tape:
        """What was noted, to be run again; raises Unrepeatable."""
        if self._obstacle is not None:
            raise Unrepeatable(self._obstacle)
        return Tape([call for noted in self._calls if (call := _repeatable(noted)) is not None])

    def run(self, call: Callable[[], object]) -> None:
        """Run something that is no kernel of torch's, and note it: it reads and writes memory of noted tensors."""
        call()
        self._calls.append(call)

    def _note(self, call: _Call) -> None:
        if not _DEPENDS_ON_NUMBERS.isdisjoint(call.kernel.tags):
            return self._refuse(f"{call.kernel} depends on the numbers of a tensor")
        if any(id(tensor) not in self._known for tensor in _tensors([*call.arguments, *call.keywords.values()])):
            return self._refuse(f"{call.kernel} reads a tensor from outside the step")
        made = list(_tensors(call.results))
        self._known |= {id(tensor): tensor for tensor in made}
        self._calls.append(call)
        if not _only_aliases(call):
            self._bytes += sum(tensor.nbytes for tensor in made)
        if self._bytes > self._most_bytes:
            self._refuse(f"the step's tensors take more than {self._most_bytes / 2**20:.0f} MiB")
        return None

    def _refuse(self, obstacle: str) -> None:
        self._obstacle, self._calls, self._known = obstacle, [], {}


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _only_aliases(call: _Call) -> bool:
    """Whether the kernel wrote nothing: what it returned is memory of what it got."""
    if call.kernel._schema.is_mutable:
        return False
    given = {tensor.untyped_storage().data_ptr() for tensor in _tensors(call.arguments)}
    made = [tensor.untyped_storage().data_ptr() for tensor in _tensors(call.results)]
    return bool(made) and given.issuperset(made)


def _repeatable(call: _Call | Callable[[], object]) -> Callable[[], object] | None:
    """The kernel as a call without arguments that writes over its old results; None where nothing is to be done."""
    if not isinstance(call, _Call):
        return call
    kernel = call.kernel
    if _only_aliases(call) or kernel._schema.name.startswith(("aten::empty", "aten::new_empty")):
        return None
    arguments, keywords = _detached(call.arguments), {name: _detached(value) for name, value in call.keywords.items()}
    if kernel._schema.is_mutable:
        return partial(_fast(kernel), *arguments, **keywords)
    results = [_detached(result) for result in call.results]
    writing, names = _writing_form(kernel)
    if writing is not None and all(isinstance(result, Tensor) for result in results):
        return partial(_fast(writing), *arguments, **keywords, **dict(zip(names, results, strict=True)))
    return partial(_run_and_copy, partial(kernel, *arguments, **keywords), results)


def _detached(value: Any) -> Any:
    # The same memory without the graph that made it, which would otherwise live as long as the tape.
    if isinstance(value, Tensor):
        return value.detach()
    return type(value)(map(_detached, value)) if isinstance(value, list | tuple) else value


def _fast(kernel: Kernel) -> Callable[..., Any]:
    # What a kernel's own call calls in turn.
    return cast(Callable[..., Any], getattr(kernel, "_op", kernel))


@cache
def _writing_form(kernel: Kernel) -> tuple[Kernel | None, Sequence[str]]:
    """The form of the kernel that writes into tensors it is given, and their names."""
    packet = kernel.overloadpacket
    wanted = [(argument.name, str(argument.type)) for argument in kernel._schema.arguments]
    for name in packet.overloads():
        found = getattr(packet, name)
        written = [argument.name for argument in found._schema.arguments if argument.is_out]
        read = [(a.name, str(a.type)) for a in found._schema.arguments if not a.is_out]
        if written and read == wanted:
            return found, written
    return None, ()


def _run_and_copy(run: Callable[[], Any], results: Sequence[Tensor | None]) -> None:
    fresh = run()
    for result, new in zip(results, fresh if isinstance(fresh, tuple) else (fresh,), strict=True):
        if result is not None:
            result.copy_(new)
