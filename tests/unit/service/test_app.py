"""The service as a process of its own."""

import subprocess
import sys
from pathlib import Path

_COUNT = """
import gc
from service.app import create_app
app = create_app()
stays = gc.get_freeze_count()
print(stays, len(gc.get_objects()))
"""


def test_the_garbage_collector_leaves_alone_what_was_imported(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _COUNT]
    environment = {"GRADPROBE_DATA_DIRECTORY": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60).stdout
    stays, walked = map(int, told.split())
    assert stays > 100 * walked
