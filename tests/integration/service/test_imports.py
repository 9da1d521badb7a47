"""The service runs where torch is not installed, nor, unless it is set, the object store's library."""

import subprocess
import sys

CODE = """
import sys
sys.modules["torch"] = sys.modules["obstore"] = None  # as if they were not installed
from service.app import assemble
assemble().openapi()
print(sorted(name for name in sys.modules if name.split(".")[0] == "worker" or name.startswith("gradprobe.probe")))
"""


def test_the_service_needs_no_torch_and_loads_nothing_of_the_worker() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", CODE], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
