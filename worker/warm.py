"""What a process that trains does before its first experiment, and says while it does it."""

import logging
import time

from gradprobe import probe, stages

_logger = logging.getLogger(__name__)


def warm_up() -> None:
    """Compile what measures a step, or load what is kept of it from before, so that no experiment waits for it."""
    if probe.is_kept():
        probe.warm_up()
    else:
        stages.tell("compiling")
        _logger.info("compiling the statistics, once for this machine: ten to thirty seconds")
        began = time.monotonic()
        probe.warm_up()
        _logger.info("compiled the statistics in %.1f s", time.monotonic() - began)
    stages.tell("warm")
