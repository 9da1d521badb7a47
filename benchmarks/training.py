"""The loops that are compared: the plainest fast one, the one a tutorial has, and ours."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count, cycle, zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.timing import Clocks, Timed, clocks
from gradprobe.probe import Probe, Recording, Tap, attach
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.store import experiments, leases, migrate
from gradprobe.store.database import Database
from worker import batches
from worker.data import Dataset, load
from worker.evaluate import evaluate
from worker.flush import Flusher
from worker.loop import Chunk, Pace, Sink, train
from worker.network import builders

Step = Callable[[], Tensor]

DEFAULT_PACE = Pace()
_WARM_ITERATIONS = 5
_ORDER_BATCHES = 2000
NEVER = 1_000_000
_LEASE_SECONDS = 3600.0
_TEST_IMAGES = 1000
_ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}


@cache
def dataset(name: str = "mnist") -> Dataset:
    """All training images; few test images, because evaluating is not what is measured."""
    whole = load(name, "unit", Settings())
    return replace(whole, test_images=whole.test_images[:_TEST_IMAGES], test_labels=whole.test_labels[:_TEST_IMAGES])


def recorded(spec: Spec, every: int, histograms_every: int) -> Spec:
    """The spec with all four tensors recorded so often."""
    recording = spec.recording.model_copy(
        update={"every": every, "histograms_every": histograms_every, "evaluate_every": NEVER}
    )
    return spec.model_copy(update={"recording": recording})


def lasting(spec: Spec, iterations: int) -> Spec:
    """The spec with so many iterations."""
    return spec.model_copy(update={"training": spec.training.model_copy(update={"iterations": iterations})})


def own_network(spec: Spec, device: torch.device) -> nn.Module:
    """The network as the worker builds it."""
    return builders.build(spec.network, batches.initialization_generator(spec.training.seed)).to(device)


def plain_network(spec: Spec, device: torch.device) -> nn.Sequential:
    """The same network with the same weights, as one writes it by hand."""
    modules: list[nn.Module] = []
    for layer in own_network(spec, device).modules():
        if isinstance(layer, nn.Linear):
            modules += [deepcopy(layer), _ACTIVATIONS[spec.network.activation.name]()]
    return nn.Sequential(*modules[:-1])


@cache
def _order(size: int, batch: int, seed: int) -> tuple[Tensor, ...]:
    # A data set whose labels are their own positions tells the order in which the worker would take the images.
    positions = torch.arange(size)
    images = torch.zeros(size, 1)
    source = batches.Batches(
        Dataset("order", images, positions, images, positions, None), batch, seed, positions.device
    )
    return tuple(source.next()[1].clone() for _ in range(_ORDER_BATCHES))


def plain_step(network: nn.Module, spec: Spec, data: Dataset, device: torch.device, probe: Probe | None = None) -> Step:
    """The fastest plain loop: data on the device, batches by index, Adam in its fused form; a probe may watch."""
    images, labels = data.train_images.to(device), data.train_labels.to(device)
    order = _order(len(labels), spec.training.batch_size, spec.training.seed)
    chosen = cycle([batch.to(device) for batch in order])
    optimizer = optim.Adam(network.parameters(), lr=spec.optimizer.learning_rate, fused=True)

    def step() -> Tensor:
        batch = next(chosen)
        loss = functional.cross_entropy(network(images.index_select(0, batch)), labels.index_select(0, batch))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    if probe is None:
        return step
    numbers = count()

    def measured_step() -> Tensor:
        batch = next(chosen)
        probe.arm(next(numbers))
        loss = functional.cross_entropy(network(images.index_select(0, batch)), labels.index_select(0, batch))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        probe.collect()
        optimizer.step()
        probe.collect_update()
        if probe.full:
            probe.drain()
        return loss

    return measured_step


def script_step(spec: Spec, data: Dataset) -> Step:
    """The loop of a tutorial: DataLoader over a TensorDataset, Adam as it comes; it records nothing."""
    network = plain_network(spec, torch.device("cpu"))
    optimizer = optim.Adam(network.parameters(), lr=spec.optimizer.learning_rate)
    criterion = nn.CrossEntropyLoss()
    loader = DataLoader(
        TensorDataset(data.train_images, data.train_labels), batch_size=spec.training.batch_size, shuffle=True
    )

    def epochs() -> Iterator[Any]:
        while True:
            yield from loader

    source = epochs()

    def step() -> Tensor:
        images, labels = next(source)
        optimizer.zero_grad()
        loss: Tensor = criterion(network(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def hooked(spec: Spec, data: Dataset, seconds: float, device: torch.device) -> Timed:
    """Time the plain loop with everything measured through hooks on its modules, as in a user's own training."""
    network = plain_network(spec, device)
    layers = [module for module in network if isinstance(module, nn.Linear)]
    activations = [module for module in network if not isinstance(module, nn.Linear)]
    taps = [
        Tap(f"layer{number}", layer, activation, spec.network.activation.name if activation else "identity")
        for number, (layer, activation) in enumerate(zip_longest(layers, activations), 1)
    ]
    with attach(taps, Recording(1, 1), list(network.parameters())) as probe:
        step = plain_step(network, spec, data, device, probe)
        return timed(step, seconds, device)


def timed(step: Callable[[], object], seconds: float, device: torch.device) -> Timed:
    """Time a step, again and again for so long, after some that do not count."""
    for _ in range(_WARM_ITERATIONS):
        step()
    _wait(device)
    began, iterations = clocks(), 0
    while not iterations or time.perf_counter() - began[0] < seconds:
        step()
        iterations += 1
    _wait(device)
    return Timed.between(began, clocks(), iterations)


class _Enough(Exception):
    """Ends a training that has been timed."""


@dataclass(slots=True)
class _Clock:
    """A sink that notes when each flush ended, so that what is timed holds whole flushes: measuring and storing."""

    seconds: float
    sink: Sink
    marks: list[tuple[int, Clocks]] = field(default_factory=list)

    def __call__(self, chunk: Chunk) -> None:
        self.sink(chunk)
        self.marks.append((chunk.iteration, clocks()))

    def keep_going(self) -> None:
        if len(self.marks) > 1 and self.marks[-1][1][0] - self.marks[0][1][0] >= self.seconds:
            raise _Enough

    @property
    def timed(self) -> Timed:
        (first, began), (last, ended) = self.marks[0], self.marks[-1]
        return Timed.between(began, ended, last - first)


def forget(chunk: Chunk) -> None:
    """A sink that keeps nothing."""


def watched(
    spec: Spec, data: Dataset, seconds: float, device: torch.device, sink: Sink = forget, pace: Pace = DEFAULT_PACE
) -> Timed:
    """Time the worker's own loop from the end of its first flush to the end of the last."""
    clock = _Clock(seconds, sink)
    try:
        train(lasting(spec, NEVER), data, device, clock, pace, clock.keep_going)
    except _Enough:
        return clock.timed
    raise AssertionError("the training ended before it was timed")


@contextmanager
def stored(spec: Spec) -> Iterator[Sink]:
    """A sink that stores in a SQLite database of its own, as the worker does."""
    with TemporaryDirectory(prefix="gradprobe-bench-") as directory:
        database = new_database(Settings(data_directory=Path(directory)))
        flusher = Flusher(database, new_lease(database, spec))
        try:
            yield storing(flusher)
        finally:
            database.close()


def storing(flusher: Flusher) -> Sink:
    """A sink that writes each chunk, as the worker does."""

    def sink(chunk: Chunk) -> None:
        flusher.grow(chunk)
        flusher.write(chunk.iteration)

    return sink


def new_database(settings: Settings) -> Database:
    """A database at this release's schema."""
    migrate.upgrade(settings.database)
    return Database(settings.database)


def new_lease(database: Database, spec: Spec) -> leases.Lease:
    """The right to write to a new experiment."""
    with database.write() as connection:
        record = experiments.create(connection, spec, maximum_attempts=1)
        claimed = leases.claim(connection, record.id, "benchmark", _LEASE_SECONDS)
    if claimed is None:
        raise AssertionError("a new experiment can be claimed")
    return claimed[1]


def losses_after(spec: Spec, data: Dataset, iterations: int, device: torch.device) -> list[float]:
    """The test loss after so many iterations of the plain loop, of the own network, and of the watched training."""
    losses = []
    for network in (plain_network(spec, device), own_network(spec, device)):
        step = plain_step(network, spec, data, device)
        for _ in range(iterations):
            step()
        losses.append(evaluate(network, data.test_images.to(device), data.test_labels.to(device)).loss)
    watched_spec = lasting(recorded(spec, 1, 1), iterations)
    return [*losses, train(watched_spec, data, device, forget, DEFAULT_PACE).test.loss]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
