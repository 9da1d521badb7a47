"""Ended experiments, what is read of them, and where it is."""

from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from sqlalchemy import func, select

from gradprobe import statistics
from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.cli import run
from gradprobe.histogram import BINS
from gradprobe.objects import ObjectStore
from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.statistics import Tensor
from gradprobe.store.database import Database
from gradprobe.store.experiments import Record
from gradprobe.store.tables import blocks
from gradprobe.store.tails import Tail
from tests.integration.service import measured

LAYERS, STEPS = 3, 700
SPEC = {
    "network": {"depth": LAYERS, "width": 4},
    "training": {"iterations": STEPS, "batch_size": 5},
    "recording": {"histograms_every": 1},
}
FEW = ("gradients", "gradients?of=outputs&max_points=40", "metrics", "gradients/histograms?of=weights&start=250")
READ = (
    *FEW,
    "gradients?of=outputs&start=100&stop=400",
    "gradients?statistics=norm,max_abs&layers=layer2",
    "weights",
    "activations?max_points=20",
    "gradients/histograms?of=outputs&bins=16",
    "metrics?max_points=10",
    "diagnosis",
    "export?format=csv",
    "export?format=csv&table=histograms&stop=50",
    "export?format=csv&table=metrics",
    "export?format=parquet",
)


def environment_of(settings: Settings) -> dict[str, str]:
    assert settings.object_store_access_key is not None
    assert settings.object_store_secret_key is not None
    return {
        "GRADPROBE_DATABASE_URL": settings.database_url,
        "GRADPROBE_DATA_DIRECTORY": str(settings.data_directory),
        "GRADPROBE_OBJECT_STORE": settings.object_store,
        "GRADPROBE_OBJECT_STORE_ENDPOINT": settings.object_store_endpoint,
        "GRADPROBE_OBJECT_STORE_ACCESS_KEY": settings.object_store_access_key.get_secret_value(),
        "GRADPROBE_OBJECT_STORE_SECRET_KEY": settings.object_store_secret_key.get_secret_value(),
    }


def ended(client: httpx.Client, database: Database, status: Status = Status.SUCCEEDED, steps: int = STEPS) -> str:
    """An experiment with several blocks, and coarser levels, of every tensor, as a worker stores them."""
    identifier = str(client.post("/experiments", json=SPEC).json()["id"])
    record, lease = measured.claim(database, identifier)
    random = np.random.default_rng(0)
    for tensor in statistics.STATISTICS:
        tail = Tail()
        for start in range(0, steps, 90):
            tail.grow(*_measured(random, record, tensor, np.arange(start, min(start + 90, steps))))
            with database.write() as connection:
                tail.write(connection, identifier, tensor)
            tail.drop_sealed()
    measured.finish(database, lease, status)
    return identifier


def _measured(
    random: np.random.Generator, record: Record, tensor: Tensor, steps: Any
) -> tuple[StatisticsBlock, CountsBlock | None]:
    layers = 1 if tensor in ("metrics", "evaluation") else len(record.layers)
    shape = (len(statistics.names(tensor)), layers, len(steps))
    block = StatisticsBlock(steps, random.lognormal(-5, 3, shape).astype(np.float32))
    if tensor not in statistics.HISTOGRAM_TENSORS:
        return block, None
    dense = np.zeros((len(steps), layers, BINS), np.int64)
    dense[:, :, 2000:2020] = random.integers(0, 9, (len(steps), layers, 20))
    return block, CountsBlock.from_dense(steps, dense)


def answers(client: httpx.Client, identifier: str, paths: Sequence[str] = READ) -> dict[str, tuple[bytes, str]]:
    found = {}
    for path in paths:
        answer = client.get(f"/experiments/{identifier}/{path}")
        assert answer.status_code == 200, (path, answer.text)
        found[path] = answer.content, answer.headers["ETag"]
    return found


def archive(*arguments: str) -> int:
    return run(["archive", "--older-than", "0h", *arguments])


def stored(database: Database) -> int:
    """Bytes of blocks in the database."""
    lengths = (func.coalesce(func.length(blocks.c[name]), 0) for name in ("statistics", "counts"))
    with database.read() as connection:
        return connection.scalar(select(func.sum(next(lengths) + next(lengths)))) or 0


def everything(database: Database) -> list[tuple[Any, ...]]:
    """All rows of blocks."""
    with database.read() as connection:
        key = (blocks.c.experiment_id, blocks.c.tensor, blocks.c.level, blocks.c.first_step)
        return [tuple(row) for row in connection.execute(select(blocks).order_by(*key))]


def names(store: ObjectStore) -> set[str]:
    return {listed.name for listed in store.listed()}
