"""Each fault by itself: every experiment that was accepted ends once, with the bits of an undisturbed run."""

import random
from typing import Any

import pytest

from benchmarks.chaos.audit import Reference
from benchmarks.chaos.faults import Fault, of
from benchmarks.chaos.system import System
from tests.acceptance.faults.surviving import under_way

#: In every run of the suite; the others take minutes together.
ALWAYS = {"worker killed, whole tree", "broker flushed", "disk full"}


def cases(database: str, always: set[str]) -> list[Any]:
    return [
        pytest.param(fault, id=fault.name, marks=[] if fault.name in always else [pytest.mark.faults])
        for fault in of(database)
    ]


@pytest.mark.parametrize("fault", cases("sqlite", ALWAYS))
def test_on_sqlite(fault: Fault, sqlite_system: System, undisturbed: dict[str, Reference]) -> None:
    with under_way(sqlite_system, undisturbed, fault.name):
        fault.do(sqlite_system, random.Random(1))


@pytest.mark.parametrize("fault", cases("postgresql", set()))
def test_on_postgresql(fault: Fault, postgresql_system: System, undisturbed: dict[str, Reference]) -> None:
    with under_way(postgresql_system, undisturbed, fault.name):
        fault.do(postgresql_system, random.Random(1))
