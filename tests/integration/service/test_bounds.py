"""What an experiment may take: refused with what it would take, and nothing is stored."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gradprobe.settings import Settings
from tests.integration.service.problem_shape import assert_problem
from tests.integration.service.serving import serving


@contextmanager
def bounded(template: Path, directory: Path, **bounds: Any) -> Iterator[httpx.Client]:
    settings = Settings(data_directory=directory, redis_url="redis://127.0.0.1:1/0", **bounds)
    shutil.copy(template, str(settings.database.database))
    with serving(settings) as client:
        yield client


@pytest.mark.parametrize(
    ("bounds", "body", "expected"),
    [
        ({"maximum_parameters": 8399}, {}, ("/network", "too_many_parameters", "8,400 parameters")),
        (
            {"maximum_unit_iterations": 149_999},
            {},
            (
                "/training/iterations",
                "too_many_unit_iterations",
                "150,000, and this server takes at most 149,999",
            ),
        ),
        (
            {},
            {
                "network": {"depth": 1000, "width": 100},
                "training": {"iterations": 1_000_000},
                "recording": {"every": 1000, "histograms_every": 1000},
            },
            (
                "/training/iterations",
                "takes_too_long",
                "hours of one processor, and this server takes at most 24",
            ),
        ),
        (
            {"maximum_memory_mebibytes": 2048},
            {"network": {"width": 1000}, "training": {"batch_size": 10_000, "iterations": 10}},
            (
                "/training/batch_size",
                "needs_too_much_memory",
                "MiB of memory, and this server takes at most 2,048",
            ),
        ),
        (
            {},
            {"network": {"depth": 1000, "width": 5}, "training": {"iterations": 400_000}},
            (
                "/recording/every",
                "stores_too_much",
                "MiB of storage, and this server takes at most 10,240",
            ),
        ),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_what_would_take_too_much_is_refused_with_what_it_would_take(
    sqlite_template: Path,
    tmp_path: Path,
    bounds: dict[str, int],
    body: dict[str, Any],
    expected: tuple[str, str, str],
) -> None:
    pointer, code, told = expected
    with bounded(sqlite_template, tmp_path, **bounds) as client:
        problem = assert_problem(client.post("/experiments", json=body), 422, "VALIDATION_FAILED")
        assert client.get("/experiments").json()["items"] == []

    assert (problem["errors"][0]["pointer"], problem["errors"][0]["code"]) == (pointer, code)
    assert told in problem["errors"][0]["message"]
    assert told in problem["detail"]
    assert "GRADPROBE_MAXIMUM_" in problem["detail"]


def test_all_that_is_too_much_is_told_at_once(sqlite_template: Path, tmp_path: Path) -> None:
    with bounded(sqlite_template, tmp_path, maximum_parameters=10, maximum_stored_mebibytes=1) as client:
        problem = assert_problem(client.post("/experiments", json={}), 422, "VALIDATION_FAILED")
        assert [error["code"] for error in problem["errors"]] == ["too_many_parameters", "stores_too_much"]


def test_the_bounds_are_where_they_are_said_to_be(sqlite_template: Path, tmp_path: Path) -> None:
    with bounded(sqlite_template, tmp_path, maximum_parameters=8400, maximum_unit_iterations=150_000) as client:
        assert client.post("/experiments", json={}).status_code == 202
