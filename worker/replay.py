"""A step of many small kernels as one: captured once as a CUDA graph, then replayed.

The only file that captures. It does what PyTorch's notes on CUDA semantics call whole-network capture, and no more:
some calls on a side stream, which load and choose what the kernels need; one call under `torch.cuda.graph`, which runs
nothing; from then on `replay`, which does on the device what that call would have done.

So a step must read and write tensors that stay where they are, look at no value on the host, and change nothing there:
no `.item()`, no shape or branch that depends on a value, no random number of Python's. Everything else that it makes
lies in the graph's own pool of memory and means nothing after it. Every call here is a step of the training, also those
that only warm up: calls before and after the capture run the same kernels on the same memory.
"""

import logging
from collections.abc import Callable
from functools import cache

import torch

_logger = logging.getLogger(__name__)

#: As many as `torch.cuda.make_graphed_callables` takes.
WARM_UPS = 3


class Replayed:
    """Does a step as often as it is called: on CUDA replayed, elsewhere, or where it can't be captured, as it is.

    Attributes:
        graph: what is replayed, once it was captured.
    """

    def __init__(self, step: Callable[[], None], device: torch.device) -> None:
        self.graph: torch.cuda.CUDAGraph | None = None
        self._step, self._device = step, device
        self._calls = 0
        self._eager = device.type != "cuda"

    def __call__(self) -> None:
        """One step, enqueued; nothing is waited for."""
        if self.graph is not None:
            self.graph.replay()
        elif self._eager:
            self._step()
        elif self._calls < WARM_UPS:
            self._calls += 1
            self._warm_up()
        else:
            self._capture()

    def _warm_up(self) -> None:
        side = _side_stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            self._step()
        torch.cuda.current_stream(self._device).wait_stream(side)

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads of a worker may call CUDA meanwhile; only what this one does must be capturable.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as reason:
            _logger.warning("every step runs eagerly, it can't be captured: %s", reason)
            self._eager = True
            self._step()  # a capture runs nothing, so this step is yet to be done
            return
        self.graph = graph
        graph.replay()


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
