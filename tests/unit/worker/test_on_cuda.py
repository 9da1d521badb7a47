"""What only a GPU can show: that a captured step is the eager one to the bit, waits for nothing and takes no memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from gradprobe.probe import Recording, attach
from gradprobe.spec import Spec
from tests.numerics.replay import record
from tests.unit.worker.stack.company import DATASET, in_parts, lanes_of, together
from tests.unit.worker.stack.test_stack import SHAPES, assert_close, members
from tests.unit.worker.test_checkpoint import assert_same
from tests.unit.worker.test_graphed import CAPTURED, longer, train
from worker import batches, replay
from worker.learner import Learner
from worker.network import builders
from worker.replay import Replayed
from worker.stack.device.data import DeviceData, on_device
from worker.stack.device.stack import DeviceStack

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here, and CUDA graphs run on nothing else"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
]
CUDA = torch.device("cuda")
#: Enough for every form of a step to be captured, and few enough to look ahead once.
STEPS = 40


@pytest.fixture
def data() -> DeviceData:
    return on_device(DATASET, CUDA)


@contextmanager
def nothing_is_waited_for() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.cuda.CUDAGraph]:
    """Those that were captured while the test ran."""
    found: list[torch.cuda.CUDAGraph] = []
    capture = Replayed._capture

    def kept(self: Replayed) -> None:
        capture(self)
        assert self.graph is not None, "it ran eagerly instead"
        found.append(self.graph)

    monkeypatch.setattr(Replayed, "_capture", kept)
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_a_captured_stack_is_the_eager_one_to_the_bit(
    name: str, data: DeviceData, graphs: list[torch.cuda.CUDAGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = members(name)
    captured = together(specs, data=data)
    assert graphs
    monkeypatch.setattr(replay, "WARM_UPS", 1_000_000)
    eager = together(specs, data=data)
    for identifier, spec in specs.items():
        assert_same(captured.recorded(identifier), eager.recorded(identifier), spec)


@pytest.mark.parametrize("name", SHAPES)
def test_a_member_is_a_run_on_the_cpu_to_float_tolerance(name: str, data: DeviceData) -> None:
    specs = members(name)
    company = together(specs, data=data)
    for identifier, spec in specs.items():
        assert_close(company.recorded(identifier), record(spec, DATASET), spec)


def test_a_stack_that_was_stopped_goes_on_as_it_would_have(data: DeviceData) -> None:
    specs = members("adam")
    whole, parts = together(specs, data=data), in_parts(specs, [3, 14], data=data)
    for identifier, spec in specs.items():
        assert_same(parts[identifier], whole.recorded(identifier), spec)


def test_between_drains_a_stack_waits_for_nothing_and_takes_no_memory(data: DeviceData) -> None:
    stack = DeviceStack(lanes_of(members("clipping by norm")), data, 64)
    for _ in range(STEPS // 2 + 1):  # histograms at every fifth step: three of them warm up
        stack.step()
    stack.drain()
    held = torch.cuda.memory_allocated()
    with nothing_is_waited_for():
        for _ in range(8):  # up to the next evaluation
            stack.step()
    assert torch.cuda.memory_allocated() == held


@pytest.mark.parametrize("name", CAPTURED)
def test_a_captured_run_by_itself_is_the_eager_one_to_the_bit(
    name: str, graphs: list[torch.cuda.CUDAGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = on_cuda(longer(name))
    with torch.backends.cudnn.flags(deterministic=True):
        captured, measured, _ = train(spec, True, device=CUDA)
        assert len(graphs) == 2, "with and without recording"
        monkeypatch.setattr(replay, "WARM_UPS", 1_000_000)
        eager, wanted, _ = train(spec, True, device=CUDA)
    for mine, theirs in zip(captured, eager, strict=True):
        assert all(torch.equal(left, right) for left, right in zip(mine, theirs, strict=True))
    for one, other in zip(measured, wanted, strict=True):
        for tensor, block in one.statistics.items():
            assert block.values.tobytes() == other.statistics[tensor].values.tobytes()


def test_between_drains_a_run_by_itself_waits_for_nothing() -> None:
    spec = on_cuda(longer("clipped"))
    learner = Learner(spec, CUDA)
    data = batches.Batches(DATASET, spec.training.batch_size, spec.training.seed, CUDA)
    taps = builders.taps(learner.network, spec.network)
    with attach(taps, Recording(2, 3), learner.parameters, learner.network) as probe:
        for step in range(STEPS // 2):
            learner.learn(step, *data.next(), probe)
        probe.drain()
        with nothing_is_waited_for():
            for step in range(STEPS // 2, STEPS):
                learner.learn(step, *data.next(), probe)


def on_cuda(spec: Spec) -> Spec:
    return spec.model_copy(update={"training": spec.training.model_copy(update={"device": "cuda"})})
