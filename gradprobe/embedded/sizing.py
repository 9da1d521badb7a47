"""How many worker processes suit this machine."""

import os
from typing import Final

_GIBIBYTE: Final = 1 << 30
#: A process with torch, compiled code, a data set in two forms and a stack.
_BYTES_A_WORKER: Final = 2 * _GIBIBYTE
#: Of one user's machine; more must be asked for.
_MOST: Final = 8


def default_workers() -> int:
    """One a core that this process may use, as far as the memory allows, at most eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores, memory // _BYTES_A_WORKER, _MOST))
