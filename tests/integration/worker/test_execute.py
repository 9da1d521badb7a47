"""One experiment from claim to end, in this process, against the real databases."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.resources import Provenance, Result
from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.statistics import STATISTICS, Tensor, names
from gradprobe.store import experiments, leases, series
from tests.integration.store.transactions import Store
from tests.processes import eventually
from worker import execute as module
from worker.execute import execute

ITERATIONS = 6
#: Long enough to be stopped on the way, and not for ever where that fails.
LONG = 20_000


#: Without clipping there is nothing that clipping left.
RECORDED = {tensor: kinds for tensor, kinds in STATISTICS.items() if tensor != "clipped_weight_gradients"}


def document(iterations: int = ITERATIONS, **parts: Any) -> dict[str, Any]:
    return {
        "dataset": "synthetic",
        "network": {"depth": 3, "width": 8, "activation": "tanh"},
        "training": {"iterations": iterations, "batch_size": 16, "device": "cpu", "seed": 3},
        "recording": {"histograms_every": 2, "evaluate_every": LONG},
        **parts,
    }


def statistics(store: Store, identifier: str, tensor: Tensor) -> StatisticsBlock:
    block = store.read(series.read_statistics, identifier, tensor)
    assert block is not None
    return block


def counted(store: Store, identifier: str, tensor: Tensor) -> CountsBlock:
    block = store.read(series.read_counts, identifier, tensor)
    assert block is not None
    return block


def in_background(store: Store, identifier: str, action: Any) -> threading.Thread:
    """Does it once the experiment has got some way."""

    def wait_and_act() -> None:
        eventually(lambda: store.get(identifier).iteration > 0)
        action()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def test_a_whole_run(store: Store, worker_settings: Settings) -> None:
    identifier = store.create(document()).id
    assert execute(identifier, worker_settings, store.database) == Status.SUCCEEDED
    record = store.get(identifier)
    assert (record.status, record.iteration, record.attempt, record.error) == (Status.SUCCEEDED, ITERATIONS, 1, None)
    result = Result.model_validate(record.result)
    losses = statistics(store, identifier, "metrics").values[0, 0]
    assert result.final_loss == pytest.approx(float(losses.mean(dtype=np.float64)))
    assert result.iterations_per_second == pytest.approx(ITERATIONS / result.seconds)
    assert result.test_accuracy is not None
    assert 0 <= result.test_accuracy <= 1
    provenance = Provenance.model_validate(record.provenance)
    assert (provenance.torch, provenance.seed, provenance.device) == (torch.__version__, 3, "cpu")
    assert (provenance.threads, provenance.dataset_sha256) == (1, None)
    assert record.finished_at is not None
    assert record.started_at is not None
    assert record.created_at <= record.started_at <= record.finished_at
    assert store.column(identifier, "lease_until") is None


def test_everything_measured_is_stored(store: Store, worker_settings: Settings) -> None:
    identifier = store.create(document()).id
    execute(identifier, worker_settings, store.database)
    steps = list(range(ITERATIONS))
    for tensor, definitions in RECORDED.items():
        block = statistics(store, identifier, tensor)
        layers = 1 if tensor in ("metrics", "evaluation") else 3
        assert block.values.shape == (len(definitions), layers, len(block.steps))
        assert block.steps.tolist() == ([0, ITERATIONS] if tensor == "evaluation" else steps)
        assert np.isfinite(block.values).all()
    assert store.read(series.read_statistics, identifier, "clipped_weight_gradients") is None
    counts = counted(store, identifier, "output_gradients")
    assert counts.steps.tolist() == [0, 2, 4]
    assert counts.dense().sum(axis=2).tolist() == [[16 * 8, 16 * 8, 16 * 10]] * 3


def test_nothing_to_claim(store: Store, worker_settings: Settings) -> None:
    held = store.running()
    ended = store.create(document()).id
    store.write(experiments.request_cancel, ended)
    for identifier in ("exp_" + "0" * 26, "nonsense", held.experiment_id, ended):
        assert execute(identifier, worker_settings, store.database) is None
    assert store.get(ended).status == Status.CANCELLED
    assert store.get(held.experiment_id).attempt == 1
    assert store.read(series.read_statistics, held.experiment_id, "metrics") is None


def test_cancelled_while_it_runs(store: Store, worker_settings: Settings) -> None:
    identifier = store.create(document(LONG)).id
    other = in_background(store, identifier, lambda: store.write(experiments.request_cancel, identifier))
    assert execute(identifier, worker_settings, store.database) == Status.CANCELLED
    other.join()
    record = store.get(identifier)
    assert (record.status, record.result, record.error) == (Status.CANCELLED, None, None)
    assert 0 < record.iteration < LONG
    assert len(statistics(store, identifier, "metrics").steps) == record.iteration


def test_another_worker_takes_over(store: Store, worker_settings: Settings) -> None:
    identifier = store.create(document(LONG)).id

    def take_over() -> None:
        # In one transaction, or the heartbeat would get the lease back in between.
        with store.database.write() as connection:
            connection.exec_driver_sql(f"UPDATE experiments SET lease_until = 0 WHERE id = '{identifier}'")
            assert leases.claim(connection, identifier, "worker-2", 60.0) is not None

    other = in_background(store, identifier, take_over)
    assert execute(identifier, worker_settings, store.database) is None
    other.join()
    record = store.get(identifier)
    assert (record.status, record.attempt, record.iteration) == (Status.RUNNING, 2, 0)
    assert store.read(series.read_statistics, identifier, "metrics") is None


def test_a_worker_that_stops_gives_it_back(
    store: Store, worker_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = threading.Event()
    monkeypatch.setattr(module, "stopping", stopping)
    identifier = store.create(document(LONG), attempts=1).id
    other = in_background(store, identifier, stopping.set)
    assert execute(identifier, worker_settings, store.database) is None
    other.join()
    assert store.get(identifier).status == Status.QUEUED
    assert store.claim(identifier, "worker-2") is not None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device that is to be missing")
def test_a_device_that_is_not_there(store: Store, worker_settings: Settings) -> None:
    training = {"iterations": 5, "device": "cuda"}
    identifier = store.create(document(training=training)).id
    assert execute(identifier, worker_settings, store.database) == Status.FAILED
    error = store.get(identifier).error
    assert error is not None
    assert error["code"] == "DEVICE_UNAVAILABLE"
    assert '"device": "auto"' in error["message"]


def test_a_data_set_that_no_source_has(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm
    offline = Settings(data_directory=tmp_path, dataset_mirrors=False, threads=1)
    identifier = store.create(document(dataset="mnist")).id
    assert execute(identifier, offline, store.database) == Status.FAILED
    record = store.get(identifier)
    assert record.error is not None
    assert record.error["code"] == "DATASET_UNAVAILABLE"
    assert "GRADPROBE_DATASETS_DIRECTORY" in record.error["message"]
    assert (record.status, record.result) == (Status.FAILED, None)


def test_a_fault_that_nobody_foresaw(store: Store, worker_settings: Settings) -> None:
    identifier = store.create(document()).id
    store.set(identifier, spec='{"network": {"depth": "many"}}')
    assert execute(identifier, worker_settings, store.database) == Status.FAILED
    error = store.get(identifier).error
    assert error is not None
    assert error["code"] == "INTERNAL"
    assert "ValidationError" in error["message"]
    assert "log" in error["message"]


def test_a_device_that_is_lost_is_no_fault_of_the_experiment_s(
    store: Store, worker_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_: object) -> None:
        raise torch.AcceleratorError("unspecified launch failure")

    identifier = store.create(document()).id
    with monkeypatch.context() as lost:
        lost.setattr(module, "train", lose)
        with pytest.raises(module.DeviceLost):
            execute(identifier, worker_settings, store.database)
    assert store.get(identifier).status == Status.RUNNING
    store.lose_worker(identifier)
    store.write(leases.recover)
    assert execute(identifier, worker_settings, store.database) == Status.SUCCEEDED


def test_a_run_that_diverges_is_a_success_of_the_service(store: Store, worker_settings: Settings) -> None:
    network = {"depth": 3, "width": 32, "activation": "leaky_relu", "initialization": "he_normal"}
    optimizer = {"name": "sgd", "learning_rate": 1000.0}
    identifier = store.create(document(12, network=network, optimizer=optimizer)).id
    assert execute(identifier, worker_settings, store.database) == Status.SUCCEEDED
    result = Result.model_validate(store.get(identifier).result)
    assert result.final_loss is None
    assert result.test_loss is None
    assert np.isnan(statistics(store, identifier, "metrics").values[0, 0, -1])
    gradients = statistics(store, identifier, "weight_gradients").values[:, :, -1]
    assert (gradients[names("weight_gradients").index("nonfinite_count")] > 0).all()
    assert np.isnan(gradients[0]).any()


def test_the_same_spec_and_seed_give_the_same_bits(store: Store, worker_settings: Settings) -> None:
    first, second = (store.create(document()).id for _ in range(2))
    for identifier in (first, second):
        execute(identifier, worker_settings, store.database)
    for tensor in RECORDED:
        one, other = (statistics(store, identifier, tensor) for identifier in (first, second))
        compared = slice(0, names("metrics").index("seconds_per_iteration")) if tensor == "metrics" else slice(None)
        assert one.values[compared].tobytes() == other.values[compared].tobytes()
    histograms = [counted(store, identifier, "weight_gradients").encode() for identifier in (first, second)]
    assert histograms[0] == histograms[1]


def test_a_second_attempt_measures_from_the_first_step_on(store: Store, worker_settings: Settings) -> None:
    identifier, alone = store.create(document()).id, store.create(document()).id
    by_itself = worker_settings.model_copy(update={"stack_members": 1})
    for name in (identifier, alone):
        execute(name, by_itself, store.database)
    store.set(identifier, status=Status.FAILED)
    store.write(experiments.retry, identifier, 1)
    assert execute(identifier, worker_settings, store.database) == Status.SUCCEEDED
    assert store.get(identifier).attempt == 2
    again, once = (statistics(store, name, "weights") for name in (identifier, alone))
    assert again.steps.tolist() == list(range(ITERATIONS))
    assert again.values.tobytes() == once.values.tobytes()


def test_the_verdict_is_written_with_the_end(store: Store, worker_settings: Settings) -> None:
    classic = {"depth": 6, "width": 10, "activation": "sigmoid"}
    identifier = store.create(document(iterations=4, network=classic)).id
    assert execute(identifier, worker_settings, store.database) is Status.SUCCEEDED
    assert store.get(identifier).verdict == "vanishing"


def test_a_rule_that_fails_fails_no_experiment(
    store: Store, worker_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a fault in the diagnosis")

    monkeypatch.setattr("worker.attempt.diagnose", fail)
    identifier = store.create(document()).id
    assert execute(identifier, worker_settings, store.database) is Status.SUCCEEDED
    assert store.get(identifier).verdict is None
