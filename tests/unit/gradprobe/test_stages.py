from pathlib import Path

import pytest

from gradprobe import stages


def test_what_is_told_is_read_and_nothing_is_written_where_nobody_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "worker.stages"
    monkeypatch.delenv(stages.VARIABLE, raising=False)
    stages.tell("connected")
    assert (list(tmp_path.iterdir()), stages.told(file)) == ([], set())
    monkeypatch.setenv(stages.VARIABLE, str(file))
    stages.tell("connected")
    stages.tell("warm")
    assert stages.told(file) == {"connected", "warm"}
