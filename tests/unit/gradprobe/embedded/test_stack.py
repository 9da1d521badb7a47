import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from gradprobe import stages
from gradprobe.embedded import DirectoryInUse, PortBusy, Stack
from gradprobe.embedded.broker import answers, make_broker
from gradprobe.embedded.children import Child
from gradprobe.embedded.lock import DirectoryLock
from gradprobe.errors import DataDirectoryUnusable
from gradprobe.settings import Settings

HOLDER = """
import sys
from pathlib import Path
from gradprobe.embedded.lock import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""

#: A worker that compiles for longer than the stack keeps silent, and then can train.
COMPILER = """
import time
from gradprobe import stages
stages.tell("compiling")
time.sleep(1)
stages.tell("warm")
time.sleep(60)
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[tuple[Child, str]]:
    child, url = make_broker(tmp_path / "broker's data", tmp_path / "valkey.log", dict(os.environ))
    child.start()
    try:
        while not answers(url):
            child.check()
        yield child, url
    finally:
        child.stop()


def test_the_broker_serves_its_password_and_nobody_else(broker: tuple[Child, str]) -> None:
    _, url = broker
    with redis.Redis.from_url(url) as client:
        client.set("key", "value")
        assert client.get("key") == b"value"
    port = url.rsplit(":", 1)[1].split("/")[0]
    with redis.Redis(port=int(port)) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.get("key")
    assert not answers(f"redis://:wrong@127.0.0.1:{port}/0")


def test_the_broker_listens_on_loopback_and_hides_its_password(broker: tuple[Child, str], tmp_path: Path) -> None:
    _, url = broker
    with redis.Redis.from_url(url) as client:
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
    mode = (tmp_path / "broker's data" / "valkey.conf").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_waiting_messages_survive_a_restart_of_the_broker(broker: tuple[Child, str], tmp_path: Path) -> None:
    child, url = broker
    with redis.Redis.from_url(url) as client:
        client.lpush("queue", "message")
    child.stop()
    assert not answers(url)
    again, url = make_broker(tmp_path / "broker's data", tmp_path / "valkey.log", dict(os.environ))
    again.start()
    try:
        while not answers(url):
            again.check()
        with redis.Redis.from_url(url) as client:
            assert client.lrange("queue", 0, -1) == [b"message"]
    finally:
        again.stop()


def test_a_second_stack_on_a_directory_is_told_who_has_it(tmp_path: Path, settings: Settings) -> None:
    settings.prepare_data_directory()
    command = [sys.executable, "-c", HOLDER, str(settings.data_directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DirectoryInUse, match=rf"process {holder.pid}.*--data-directory"):
            Stack(settings).start()
        holder.kill()
    lock = DirectoryLock(settings.data_directory)  # a holder that was killed holds nothing
    lock.acquire()
    lock.release()


def test_a_busy_port_is_named_and_nothing_is_left(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        stack = Stack(settings, port=port)
        with pytest.raises(PortBusy, match=rf"Port {port} .*--port"):
            stack.start()
    assert stack.children == []
    lock = DirectoryLock(settings.data_directory)
    lock.acquire()
    lock.release()


def test_an_unusable_data_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataDirectoryUnusable):
        Stack(Settings(data_directory=tmp_path / "file" / "data")).start()


def test_a_broker_that_is_set_is_used(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Stack(settings).embeds_broker
    given = Stack(Settings(data_directory=settings.data_directory, redis_url="redis://127.0.0.1:1/0"))
    assert not given.embeds_broker
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:2/0")
    found = Stack(Settings(data_directory=settings.data_directory))
    assert (found.embeds_broker, found.broker_url) == (False, "redis://127.0.0.1:2/0")


def test_a_worker_that_compiles_first_is_waited_for_and_said_to(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradprobe.embedded.stack._TELL_SECONDS", 0.3)
    said: list[str] = []
    environment = os.environ | {stages.VARIABLE: str(tmp_path / "worker.stages")}
    worker = Child("worker", [sys.executable, "-c", COMPILER], tmp_path / "log", environment)
    worker.start()
    try:
        Stack(settings, announce=said.append)._wait_until_one_can_train([worker])
    finally:
        worker.patience = 0.0
        worker.stop()
    told = [line for line in said if "loads PyTorch" not in line]
    assert told[0] == "the worker compiles its statistics, once for this machine: ten to thirty seconds"
    assert len(told) >= 3
    assert all("the worker still compiles: " in line for line in told[1:])


def test_stopping_what_never_started_is_harmless(settings: Settings) -> None:
    Stack(settings).stop()
