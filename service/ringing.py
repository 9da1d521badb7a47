"""Telling workers, after the commit, of what was queued."""

import logging
from collections.abc import Iterable, Sequence

from gradprobe.errors import GradprobeError
from gradprobe.spec import Spec
from gradprobe.store import experiments
from gradprobe.store.experiments import queue_of
from service.dependencies import Service

_logger = logging.getLogger(__name__)


def ring(service: Service, queued: Iterable[tuple[str, str, int]]) -> None:
    """Ring for each (id, queue, priority). Whatever fails here, the experiments are stored and will be sent again."""
    sent = []
    for identifier, queue, priority in queued:
        if not service.doorbell.ring(identifier, queue, priority):
            break  # a broker that is away stays so for the rest, and each would be waited for
        sent.append(identifier)
    if not sent:
        return
    try:
        with service.database.write() as connection:
            experiments.mark_sent(connection, *sent)
    except GradprobeError as error:
        _logger.warning("%s and %d more were sent but not marked so: %s", sent[0], len(sent) - 1, error.message)


def ring_group(service: Service, group_id: str, queued: Sequence[str], specs: Sequence[Spec]) -> None:
    """Ring for the experiments of a group that was just submitted; none where it was submitted before."""
    if queued:
        _logger.info("accepted %s with %d experiments", group_id, len(queued))
    ring(service, [(one, queue_of(spec), spec.queue.priority) for one, spec in zip(queued, specs, strict=False)])
