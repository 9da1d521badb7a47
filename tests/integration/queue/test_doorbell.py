"""The doorbell against a real broker: what arrives, in which order, and what happens when nobody is there."""

import json
import socket
import time
from collections.abc import Iterator, Sequence

import pytest
import redis
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.message import Message
from kombu.messaging import Consumer

from gradprobe.queue import QUEUES, TRAIN, Doorbell, celery_app
from gradprobe.settings import Settings

IDENTIFIERS = [f"exp_{letter * 26}" for letter in "abcd"]


@pytest.fixture
def doorbell(redis_url: str) -> Iterator[Doorbell]:
    bell = Doorbell(Settings(redis_url=redis_url))
    yield bell
    bell.close()


@pytest.fixture
def unreachable() -> Iterator[Doorbell]:
    """Rings at a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    bell = Doorbell(Settings(redis_url=f"redis://127.0.0.1:{port}/0"))
    yield bell
    bell.close()


def received(redis_url: str, queues: Sequence[str], number: int) -> list[Message]:
    """The next messages, taken one at a time as workers take them, by a consumer that knows nothing of Celery."""
    messages: list[Message] = []

    def take(_body: object, message: Message) -> None:
        messages.append(message)
        message.ack()

    options = celery_app(Settings(redis_url=redis_url)).conf.broker_transport_options
    with Connection(redis_url, transport_options=options) as connection:
        consumer = Consumer(connection.channel(), [Queue(queue) for queue in queues], accept=["json"], prefetch_count=1)
        consumer.register_callback(take)
        with consumer:
            while len(messages) < number:
                connection.drain_events(timeout=5)
    return messages


def rung(messages: list[Message]) -> list[str]:
    return [json.loads(message.body)[0][0] for message in messages]


@pytest.mark.parametrize("queue", QUEUES)
def test_a_message_holds_the_id_and_nothing_else(doorbell: Doorbell, redis_url: str, queue: str) -> None:
    assert doorbell.ring(IDENTIFIERS[0], queue, 0)
    [message] = received(redis_url, [queue], 1)
    arguments, options, signature = json.loads(message.body)
    assert arguments == [IDENTIFIERS[0]]
    assert options == {}
    assert set(signature.values()) == {None}
    assert message.content_type == "application/json"
    assert message.headers["task"] == TRAIN


def test_each_ring_is_counted_in_its_own_queue(doorbell: Doorbell) -> None:
    assert [doorbell.depth(queue) for queue in QUEUES] == [0, 0, 0]
    for number, queue in enumerate(QUEUES):
        for priority in range(number + 1):
            assert doorbell.ring(IDENTIFIERS[0], queue, priority)
    assert [doorbell.depth(queue) for queue in QUEUES] == [1, 2, 3]


def test_what_was_taken_counts_no_more(doorbell: Doorbell, redis_url: str) -> None:
    doorbell.ring(IDENTIFIERS[0], "any", 0)
    doorbell.ring(IDENTIFIERS[1], "any", 0)
    received(redis_url, ["any"], 2)
    assert doorbell.depth("any") == 0


def test_the_higher_priority_comes_first(doorbell: Doorbell, redis_url: str) -> None:
    for identifier, priority in zip(IDENTIFIERS, (3, 0, 9, 5), strict=True):
        assert doorbell.ring(identifier, "any", priority)
    assert rung(received(redis_url, ["any"], 4)) == [IDENTIFIERS[place] for place in (2, 3, 0, 1)]


def test_of_equal_priority_the_older_comes_first(doorbell: Doorbell, redis_url: str) -> None:
    for identifier in IDENTIFIERS:
        assert doorbell.ring(identifier, "any", 4)
    assert rung(received(redis_url, ["any"], 4)) == IDENTIFIERS


def test_every_one_of_the_ten_priorities_has_its_place(doorbell: Doorbell, redis_url: str) -> None:
    for priority in range(10):
        assert doorbell.ring(f"exp_{priority}", "any", priority)
    assert rung(received(redis_url, ["any"], 10)) == [f"exp_{priority}" for priority in reversed(range(10))]


def test_a_worker_of_two_queues_serves_the_priority_first_and_then_the_queue(
    doorbell: Doorbell, redis_url: str
) -> None:
    for queue, identifier, priority in (
        ("any", "exp_1", 0),
        ("any", "exp_2", 0),
        ("any", "exp_3", 9),
        ("cpu", "exp_4", 0),
        ("cpu", "exp_5", 0),
    ):
        assert doorbell.ring(identifier, queue, priority)
    assert rung(received(redis_url, ["cpu", "any"], 5)) == ["exp_3", "exp_4", "exp_5", "exp_1", "exp_2"]


def test_a_broker_that_is_away_is_told_quickly(unreachable: Doorbell, caplog: pytest.LogCaptureFixture) -> None:
    started = time.monotonic()
    assert unreachable.ring(IDENTIFIERS[0], "any", 0) is False
    assert unreachable.depth("any") is None
    assert unreachable.reachable() is False
    assert time.monotonic() - started < 5.0
    assert f"{IDENTIFIERS[0]} stays queued" in caplog.text


def test_a_broker_that_is_there_is_reachable(doorbell: Doorbell) -> None:
    assert doorbell.reachable() is True


def test_it_rings_again_after_the_broker_cut_every_connection(doorbell: Doorbell, redis_url: str) -> None:
    assert doorbell.ring(IDENTIFIERS[0], "any", 0)
    with redis.Redis.from_url(redis_url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    # The first may find out only now that its connection is gone; the reconciler rings again.
    doorbell.ring(IDENTIFIERS[1], "any", 0)
    assert doorbell.ring(IDENTIFIERS[2], "any", 0)
    assert doorbell.depth("any") in (2, 3)


def test_a_wrong_password_is_a_broker_that_is_away(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.acl_setuser(
            "guarded", enabled=True, passwords=["+right"], keys=["*"], channels=["*"], categories=["+@all"]
        )
    for password, expected in (("wrong", False), ("right", True)):
        bell = Doorbell(Settings(redis_url=redis_url.replace("//", f"//guarded:{password}@")))
        try:
            assert bell.ring(IDENTIFIERS[0], "any", 0) is expected
            assert bell.reachable() is expected
        finally:
            bell.close()
