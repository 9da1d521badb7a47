"""Each fault by itself: every experiment that was accepted ends once, with the bits of an undisturbed run."""

import random

import pytest

from benchmarks.chaos.audit import Reference
from benchmarks.chaos.faults import Fault, of
from benchmarks.chaos.system import System
from tests.acceptance.faults.surviving import under_way

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("fault", of("sqlite"), ids=lambda fault: fault.name)
def test_on_sqlite(fault: Fault, sqlite_system: System, undisturbed: dict[str, Reference]) -> None:
    with under_way(sqlite_system, undisturbed, fault.name):
        fault.do(sqlite_system, random.Random(1))


@pytest.mark.parametrize("fault", of("postgresql"), ids=lambda fault: fault.name)
def test_on_postgresql(fault: Fault, postgresql_system: System, undisturbed: dict[str, Reference]) -> None:
    with under_way(postgresql_system, undisturbed, fault.name):
        fault.do(postgresql_system, random.Random(1))
