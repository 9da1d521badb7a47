"""A stack of sixty-four whose worker is killed: every member ends once, bit for bit as if nothing had happened."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.chaos.series import Series, read_series
from gradprobe import Client
from gradprobe.embedded import Stack
from gradprobe.store.database import Database
from tests.acceptance.conftest import make_settings, pool_children, until

ITERATIONS = 1_500
#: Half of those that wait are taken along, so that of so many the first stack has sixty-four.
MEMBERS = 127
BASE = {"dataset": "synthetic", "training": {"iterations": ITERATIONS}}


def swept(stack: Stack, client: Client, disturb: Callable[[list[str]], None]) -> list[Series]:
    """Every member's series, after a sweep that was disturbed on its way."""
    made = client.sweep({"/training/seed": list(range(MEMBERS))}, BASE)
    members = [member.experiment_id for member in made.members]
    disturb(members)
    until(lambda: client.get_sweep(made.id).status == "ended", 300, "the sweep's end")
    assert {member.status for member in client.get_sweep(made.id).members} == {"succeeded"}
    database = Database(stack.settings.database)
    try:
        return [read_series(database, member) for member in members]
    finally:
        database.close()


@pytest.mark.faults
def test_a_killed_stack_goes_on_bit_for_bit(tmp_path: Path, mnist_directory: Path) -> None:
    settings = make_settings(tmp_path, mnist_directory).model_copy(update={"checkpoint_seconds": 1.0})
    stacked: list[int] = []
    with Stack(settings) as stack, Client(stack.url) as client:

        def kill(members: list[str]) -> None:
            for share in (0.3, 0.7):
                until(lambda: client.get(members[0]).progress.iteration > share * ITERATIONS, 120, "progress")  # noqa: B023
                found = client.get(members[0])
                assert found.provenance is not None
                stacked.append(found.provenance.stacked or 0)
                for process in pool_children(stack):
                    process.kill()
                time.sleep(1.0)

        undisturbed = swept(stack, client, lambda _: None)
        disturbed = swept(stack, client, kill)
        assert stacked[0] == 64
        for expected, found in zip(undisturbed, disturbed, strict=True):
            assert found.faults(ITERATIONS) == []
            assert found.differences(expected) == []
