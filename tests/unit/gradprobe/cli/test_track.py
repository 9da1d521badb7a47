import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradprobe.cli.track import Track, tracks_of
from gradprobe.client import Client
from gradprobe.state import Status
from tests.unit.gradprobe.prepared import PreparedServer

LAYERS = ("layer1", "layer2")


def filled(values: Any, sizes: list[int]) -> Track:
    """A track that got `values` [L, S] in windows of these sizes, the last one taking the rest."""
    track, start = Track("weights"), 0
    for size in [*sizes, values.shape[1]]:
        stop = min(start + size, values.shape[1])
        if stop > start:
            track.append(LAYERS, np.arange(start, stop), values[:, start:stop])
        start = stop
    return track


@given(st.integers(1, 20_000), st.lists(st.integers(1, 9_000), max_size=5))
def test_a_long_run_is_drawn_in_bounded_room_and_in_even_steps(steps: Any, sizes: list[int]) -> None:
    ramp = np.arange(float(steps))
    track = filled(np.stack([ramp, 2 * ramp]), sizes)
    drawn = track.drawn()
    assert drawn.shape[1] <= 4_097
    whole = steps // track.stride
    expected = ramp[: whole * track.stride].reshape(whole, track.stride).mean(axis=1)
    np.testing.assert_allclose(drawn[0, :whole], expected)
    np.testing.assert_allclose(drawn[1, :whole], 2 * expected)
    assert drawn.shape[1] == whole + (steps % track.stride > 0)


def test_a_summary_knows_the_first_value_the_newest_and_the_mean_of_the_finite_ones() -> None:
    values = np.array([[1.0, np.inf, 3.0, 2.0], [np.nan, np.nan, np.nan, np.nan]])
    first, second = filled(values, [1, 2]).summaries()
    assert (first.first, first.newest, first.mean) == (1.0, 2.0, 2.0)
    assert math.isnan(second.first)
    assert math.isnan(second.mean)
    assert Track("weights").summaries() == []


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_no_condensing_hides_what_is_not_finite(value: Any) -> None:
    values = np.ones((2, 20_000))
    values[1, 7_000] = value
    drawn = filled(values, [500] * 10).drawn()
    assert np.isfinite(drawn[0]).all()
    assert (~np.isfinite(drawn[1])).sum() == 1


def test_a_large_run_is_fetched_in_windows_without_a_gap(server: PreparedServer) -> None:
    spec = server.experiment(1).spec
    spec = {**spec, "network": {**spec["network"], "depth": 100}, "recording": {**spec["recording"], "every": 2}}
    made = server.experiment(1, Status.RUNNING, spec=spec, progress={"iteration": 12_000, "iterations": 20_000})
    empty = server.series({"layer1": []})
    server.prepare("GET", f"/experiments/{made.id}/gradients", (200, empty))
    track = tracks_of(made)["weights"]
    with Client(server.url) as client:
        track.fetch(client, made)
    windows = [(int(request.query["start"]), int(request.query["stop"])) for request in server.requests]
    assert windows == [(0, 5_000), (5_000, 10_000), (10_000, 15_000)]
    assert track.next_step == 10_000  # nothing came of the last window yet


def test_a_track_is_made_for_each_kind_that_is_recorded(server: PreparedServer) -> None:
    assert set(tracks_of(server.experiment(1))) == {"weights", "outputs"}
    recording = {"recording": {"tensors": ["output_gradients", "weights"]}}
    assert set(tracks_of(server.experiment(1, spec=recording))) == {"outputs"}
