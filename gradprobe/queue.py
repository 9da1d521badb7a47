"""The doorbell: the only place that knows the broker. A message carries an experiment's id and nothing else.

The database is the truth. A message that is lost, doubled or late changes nothing: the worker claims the row, and the
reconciler rings again for what still waits.
"""

import logging
from typing import Final

from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError

from gradprobe.settings import Settings

TRAIN: Final = "gradprobe.train"
QUEUES: Final = ("any", "cpu", "gpu")
HIGHEST_PRIORITY: Final = 9

_logger = logging.getLogger(__name__)


def celery_app(settings: Settings) -> Celery:
    """Celery as this project uses it: no result backend, JSON only, nothing prefetched, acknowledged early.

    Why: a redelivery is never needed, because the reconciler finds what lost its worker within seconds, where the
    broker's visibility time-out takes minutes to an hour and runs long tasks twice.
    """
    app = Celery("gradprobe", broker=settings.broker_url)
    app.conf.update(
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
        task_default_queue=QUEUES[0],
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_concurrency=1,
        worker_pool_start_method="spawn",
        # A fresh child imports torch before it reports. By default one that takes longer than four seconds is killed,
        # so that on a busy machine every child is, one after the other, and nothing is ever trained.
        worker_proc_alive_timeout=300.0,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 30,
            "queue_order_strategy": "priority",
            "priority_steps": list(range(HIGHEST_PRIORITY + 1)),
        },
    )
    return app


class Doorbell:
    """Rings for experiments. Thread-safe; never raises for a broker that is away."""

    def __init__(self, settings: Settings) -> None:
        self._app = celery_app(settings)
        # Kombu's own patience with a broker that is away is six seconds, and a client waits for its 202 meanwhile.
        self._app.conf.broker_transport_options |= {"max_retries": 1, "interval_start": 0, "interval_max": 0.1}

    def ring(self, experiment_id: str, queue: str, priority: int) -> bool:
        """Send the experiment's id; False when the broker can't be reached, for the reconciler to try again."""
        try:
            # The broker serves its lowest number first.
            self._app.send_task(TRAIN, [experiment_id], queue=queue, priority=HIGHEST_PRIORITY - priority, retry=False)
        except (OperationalError, OSError) as error:
            _logger.warning("broker unreachable, %s stays queued: %s", experiment_id, error)
            return False
        return True

    def depth(self, queue: str) -> int | None:
        """Messages that wait in a queue; None when the broker can't be reached."""
        with self._app.connection_for_read() as connection:
            try:
                return int(connection.default_channel.queue_declare(queue=queue, passive=True).message_count)
            except connection.channel_errors:
                return 0  # the broker drops a list that is empty, and with it the queue's name
            except (*connection.connection_errors, OperationalError, OSError):
                return None

    def reachable(self) -> bool:
        """Whether the broker answers."""
        return self.depth(QUEUES[0]) is not None

    def close(self) -> None:
        """Give all connections back."""
        self._app.close()
