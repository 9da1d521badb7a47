"""A small chaos run, by the command that makes the large ones; and an audit that notices what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.chaos.audit import Reference, audit
from benchmarks.chaos.series import Series, read_series
from gradprobe.queue import celery_app
from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.store import experiments, leases, series
from gradprobe.store.listing import Filters
from tests.integration.store.transactions import Store

ROOT = Path(__file__).parents[3]
SOME = "worker killed;pool child killed;broker flushed;disk full"


@pytest.mark.faults
def test_a_small_chaos_run_finds_nothing(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks.chaos", "--experiments", "5", "--faults", "4", "--iterations", "600",
            "--only", SOME, "--json", str(report),
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert sum(found["faults"].values()) == 4
    assert len(found["faults"]) == 4
    assert found["findings"] == {"lost": [], "doubled": [], "gaps": [], "differences": [], "leftovers": []}
    assert found["attempts"] >= found["experiments"] == 5
    assert not list(tmp_path.glob("gradprobe-chaos-*"))


def test_a_child_that_is_slow_to_start_is_not_killed() -> None:
    """A chaos run on a busy machine found every child killed while it imported torch, over and over."""
    assert celery_app(Settings()).conf.worker_proc_alive_timeout >= 60


@pytest.fixture
def expected(sqlite_database: object) -> Reference:
    steps = np.arange(4)
    return Reference(
        Series({("metrics", 0, "statistics"): {"steps": steps, "values": np.ones((4, 1, 4), np.float32)}}), {}
    )


def test_the_audit_notices(sqlite_database: object, expected: Reference) -> None:
    store = Store(sqlite_database)  # type: ignore[arg-type]  # a Database
    names = {"lost": "failed", "twice": "twice", "gap": "gap", "other": "other", "whole": "whole"}
    for name in [*names, "twice"]:
        identifier = store.create({"name": name}).id
        store.set(identifier, iterations=4)
        claimed = store.claim(identifier)
        assert claimed is not None
        steps = np.array([0, 1, 3]) if name == "gap" else np.arange(4)
        values = np.full((5, 1, len(steps)), 2.0 if name == "other" else 1.0, np.float32)
        with store.database.write() as connection:
            series.write(connection, identifier, "metrics", series.StatisticsBlock(steps, values))
            leases.finish(connection, claimed[1], Status.FAILED if name == "lost" else Status.SUCCEEDED, result={})
    accepted = {**dict.fromkeys(names, "spec"), "never stored": "spec"}
    findings = audit(store.database, accepted, {"spec": expected})
    assert [line.split(" ")[0].rstrip(":") for line in findings.lost] == ["never", "lost"]
    assert findings.doubled == ["twice"]
    assert [line.split(" ")[0] for line in findings.gaps] == ["gap"]
    assert [line.split(" ")[0] for line in findings.differences] == ["gap", "gap", "other"]
    assert findings.leftovers == []
    assert store.read(experiments.page, Filters(), None, 1)
    assert read_series(store.database, identifier).differences(expected.series) == []
