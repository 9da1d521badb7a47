"""Broker, worker and API as one thing that starts, is ready, and stops."""

import errno
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import gradprobe
from gradprobe import stages
from gradprobe.client import Client, ServerUnreachable, UnexpectedAnswer
from gradprobe.embedded.broker import LOOPBACK, answers, free_port, make_broker
from gradprobe.embedded.children import Child
from gradprobe.embedded.errors import NotReady, PortBusy
from gradprobe.embedded.lock import DirectoryLock
from gradprobe.errors import GradprobeError
from gradprobe.settings import Settings
from gradprobe.store.migrate import upgrade

DEFAULT_PORT = 8000

_READY_SECONDS = 90.0
_WARM_SECONDS = 300.0  # where it compiles first, on a slow machine
_TELL_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_WATCH_SECONDS = 0.5
_WORKER_PATIENCE = 10.0  # a warm shutdown hands the experiment back; it need not wait for its end

Announce = Callable[[str], None]


def _say_nothing(_: str) -> None:
    pass


class Stack:
    """The whole stack on the loopback interface of this machine.

    Args:
        settings: the data directory, and a database or broker other than the embedded ones where they are set.
        port: of the API; 0 takes any that is free.
        workers: how many worker processes.
        announce: called with each step of starting and stopping, in words.

    A context manager: inside it `url` answers and a worker listens. Use it from a thread that outlives it, best the
    main one: when the thread that started them ends, the kernel ends the children.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        port: int = 0,
        workers: int = 1,
        announce: Announce = _say_nothing,
    ) -> None:
        self.settings = settings or Settings()
        self.directory = self.settings.data_directory.absolute()
        self.workers = workers
        self.children: list[Child] = []
        self.was_ready = False
        self.broker_url = self.settings.broker_url
        self._port = port
        self.announce = announce
        self._lock = DirectoryLock(self.directory)

    @property
    def port(self) -> int:
        """The API's port; 0 before one is chosen."""
        return self._port

    @property
    def url(self) -> str:
        """The API's URL."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def logs(self) -> Path:
        """The directory of the children's logs."""
        return self.directory / "logs"

    @property
    def embeds_broker(self) -> bool:
        """Whether the broker is the stack's own: no other was set."""
        return "redis_url" not in self.settings.model_fields_set

    def start(self) -> None:
        """Start everything and wait until it is ready.

        Raises:
            DirectoryInUse, PortBusy, ChildDied, NotReady: nothing is left running.
        """
        self.settings.prepare_data_directory()
        self._lock.acquire()
        try:
            self._claim_port()
            self._lock.describe(f"process {os.getpid()}, {self.url}")
            self.announce("migrating the database")
            upgrade(self.settings.database)
            if self.embeds_broker:
                self._start_broker()
            self._start_workers_and_service()
            self.was_ready = True
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything, in the order that loses least: API, workers, broker. Doing it twice is harmless."""
        try:
            for child in self.children:
                if child.name != "broker":
                    child.ask_to_stop()
            while self.children:
                self.announce(f"stopping the {self.children[-1].name}")
                self.children[-1].stop()
                self.children.pop()
        finally:
            for child in self.children:
                child.patience = 0.0
                child.stop()
            self.children.clear()
            self._lock.release()

    def watch(self) -> None:
        """Block while all is well.

        Raises:
            ChildDied: a process of the stack ended by itself.
        """
        while True:
            self.check()
            time.sleep(_WATCH_SECONDS)

    def check(self) -> None:
        """See that every process lives.

        Raises:
            ChildDied: one does not; with the end of its log.
        """
        for child in self.children:
            child.check()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _claim_port(self) -> None:
        if self._port == 0:
            self._port = free_port()
            return
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, self._port))
            except OSError as error:
                why = "is in use by another program" if error.errno == errno.EADDRINUSE else f"({error.strerror})"
                raise PortBusy(
                    f"Port {self._port} of {LOOPBACK} {why}; choose another with --port, or --port 0 for any"
                ) from error

    def _start_broker(self) -> None:
        self.announce("starting the broker")
        broker, self.broker_url = make_broker(self.directory / "valkey", self.logs / "valkey.log", self._environment())
        self._launch(broker)
        self._until(lambda: answers(self.broker_url), lambda: "the broker does not answer")

    def _start_workers_and_service(self) -> None:
        self.announce("starting the worker and the API")
        workers = [
            self._worker("worker" if number == 1 else f"worker{number}") for number in range(1, self.workers + 1)
        ]
        for worker in workers:
            _stages_of(worker).unlink(missing_ok=True)
            self._launch(worker)
        self._launch(self._service())
        self.announce("waiting for the API")
        self._until(self._service_is_ready, self._why_not_ready)
        self.announce("waiting for the worker")
        for worker in workers:
            self._wait_for_worker(worker)
        self._wait_until_one_can_train(workers)

    def _wait_for_worker(self, worker: Child) -> None:
        # A ping would need remote control, which can be off.
        self._until(
            lambda: "connected" in stages.told(_stages_of(worker)),
            lambda: f"the {worker.name} does not say it is ready",
        )

    def _wait_until_one_can_train(self, workers: Sequence[Child]) -> None:
        """The first start on a machine compiles for some ten seconds: whoever submits meanwhile would see nothing."""
        began = said = time.monotonic()
        compiling = False

        def warm() -> bool:
            nonlocal began, said, compiling
            now = time.monotonic()
            reached = set[str]().union(*(stages.told(_stages_of(worker)) for worker in workers))
            if "warm" in reached:
                return True
            if "compiling" in reached and not compiling:
                began, said, compiling = now, now, True
                self.announce("the worker compiles its statistics, once for this machine: ten to thirty seconds")
            elif now - said >= _TELL_SECONDS:
                said = now
                self.announce(f"the worker {'still compiles' if compiling else 'loads PyTorch'}: {now - began:.0f} s")
            return False

        self._until(warm, lambda: "no worker is ready to train", _WARM_SECONDS)

    def _worker(self, name: str) -> Child:
        # The node's name carries this process's id: two stacks may share a broker and a host name.
        command = (
            sys.executable, "-m", "celery", "-A", "worker.app", "worker", "--loglevel", "INFO", "--pool", "prefork",
            "--concurrency", "1", "--queues", "any,cpu,gpu", "--without-gossip", "--without-mingle",
            "--hostname", f"{name}-{os.getpid()}@%h",
        )  # fmt: skip
        log = self.logs / f"{name}.log"
        environment = self._environment() | {stages.VARIABLE: str(log.with_suffix(".stages"))}
        return Child(name, command, log, environment, patience=_WORKER_PATIENCE)

    def _service(self) -> Child:
        command = (
            sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app",
            "--host", LOOPBACK, "--port", str(self._port),
            "--timeout-graceful-shutdown", "3",
            "--timeout-keep-alive", str(self.settings.idle_connection_seconds),
        )  # fmt: skip
        return Child("API", command, self.logs / "service.log", self._environment())

    def _environment(self) -> dict[str, str]:
        """This process's environment and its settings, so that a child reads the same ones."""
        environment = dict(os.environ)
        for name in self.settings.model_fields_set:
            value = getattr(self.settings, name)
            if isinstance(value, tuple):
                environment[f"GRADPROBE_{name.upper()}"] = json.dumps(value)
            elif value is not None:
                reveal = getattr(value, "get_secret_value", None)
                environment[f"GRADPROBE_{name.upper()}"] = str(reveal() if reveal else value)
        environment["GRADPROBE_DATA_DIRECTORY"] = str(self.directory)
        environment["GRADPROBE_REDIS_URL"] = self.broker_url
        # The children must run the code that this process runs, also from a checkout that is not installed.
        here = str(Path(gradprobe.__file__).parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (here, environment.get("PYTHONPATH"))))
        environment["PYTHONUNBUFFERED"] = "1"
        if "niceness" not in self.settings.model_fields_set:
            environment["GRADPROBE_NICENESS"] = "10"  # whoever looks at it on this machine comes first
        if "log_format" not in self.settings.model_fields_set:
            environment["GRADPROBE_LOG_FORMAT"] = "console"  # whoever runs it on a desk reads these files
        return environment

    def _launch(self, child: Child) -> Child:
        self.children.append(child)
        child.start()
        return child

    def _until(self, ready: Callable[[], bool], reason: Callable[[], str], seconds: float = _READY_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise NotReady(f"After {seconds:g} s {reason()}; the logs are in {self.logs}")
            time.sleep(_LOOK_SECONDS)
        self.check()

    def _service_is_ready(self) -> bool:
        with suppress(GradprobeError), Client(self.url, timeout=5.0) as client:
            return client.ready().status == "ready"
        return False

    def _why_not_ready(self) -> str:
        try:
            with Client(self.url, timeout=5.0) as client:
                found = client.ready()
        except (ServerUnreachable, UnexpectedAnswer) as error:
            return error.message
        parts = ", ".join(f"{part}: {state}" for part, state in found.checks.items())
        return f"the API is {found.status} ({parts})"


def _stages_of(worker: Child) -> Path:
    return Path(worker.environment[stages.VARIABLE])
