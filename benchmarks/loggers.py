"""The plain loop with a peer's logger in it, as its documentation shows: less is recorded than we record."""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from benchmarks.peers import require
from benchmarks.training import Step, plain_network, plain_step
from gradprobe.spec import Spec
from worker.data import Dataset


@contextmanager
def tensorboard_step(spec: Spec, data: Dataset, device: torch.device) -> Iterator[Step]:
    """Each step writes the loss and, a layer, three scalars and two histograms with SummaryWriter."""
    require("tensorboard")
    tensorboard = require("torch.utils.tensorboard")
    network = plain_network(spec, device)
    train = plain_step(network, spec, data, device)
    layers = [module for module in network if isinstance(module, nn.Linear)]
    done = 0
    with TemporaryDirectory(prefix="gradprobe-bench-") as directory, tensorboard.SummaryWriter(directory) as writer:

        def step() -> Tensor:
            nonlocal done
            loss = train()
            writer.add_scalar("loss", loss, done)
            for number, layer in enumerate(layers, 1):
                gradient = torch.as_tensor(layer.weight.grad)
                writer.add_scalar(f"layer{number}/mean_abs", gradient.abs().mean(), done)
                writer.add_scalar(f"layer{number}/std", gradient.std(), done)
                writer.add_scalar(f"layer{number}/norm", gradient.norm(), done)
                writer.add_histogram(f"layer{number}/gradient", gradient, done)
                writer.add_histogram(f"layer{number}/weight", layer.weight, done)
            done += 1
            return loss

        yield step


@contextmanager
def wandb_step(spec: Spec, data: Dataset, device: torch.device) -> Iterator[Step]:
    """Each step logs the loss and `watch`'s histogram of every parameter's gradient, offline."""
    wandb = require("wandb")
    network = plain_network(spec, device)
    train = plain_step(network, spec, data, device)
    with (
        TemporaryDirectory(prefix="gradprobe-bench-", ignore_cleanup_errors=True) as directory,
        wandb.init(project="benchmark", dir=directory, mode="offline") as run,
    ):
        run.watch(network, log="gradients", log_freq=1)

        def step() -> Tensor:
            loss = train()
            run.log({"loss": loss})
            return loss

        yield step
        run.unwatch(network)
