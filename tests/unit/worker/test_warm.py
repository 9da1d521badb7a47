import logging
from pathlib import Path

import pytest

from gradprobe import probe, stages
from gradprobe.probe import compiled
from worker.warm import warm_up


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(stages.VARIABLE, str(tmp_path / "worker.stages"))
    return tmp_path / "worker.stages"


def test_a_first_start_says_that_it_compiles(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(probe, "is_kept", lambda: False)
    with caplog.at_level(logging.INFO):
        warm_up()
    assert stages.told(file) == {"compiling", "warm"}
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]
    assert "compiling the statistics, once for this machine" in caplog.messages[0]
    assert caplog.messages[1].startswith("compiled the statistics in ")


def test_a_later_start_has_nothing_to_say(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    probe.warm_up()
    with caplog.at_level(logging.INFO):
        warm_up()
    assert (stages.told(file), caplog.messages) == ({"warm"}, [])


def test_what_was_left_half_compiled_is_not_taken_for_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    assert not probe.is_kept()
    compiled.mark_kept()  # no directory there: nothing could be kept
    assert not probe.is_kept()
    compiled._marker(compiled._HERE).parent.mkdir()
    assert not probe.is_kept()
    compiled.mark_kept()
    assert probe.is_kept()
