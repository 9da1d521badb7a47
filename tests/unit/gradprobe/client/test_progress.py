"""`wait(progress=True)`: a bar in a real notebook kernel, a bar on a real terminal, and silence anywhere else."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

from gradprobe import Client
from gradprobe.resources import Experiment
from gradprobe.state import Status
from tests.unit.gradprobe.prepared import PreparedServer

CODE = """
from gradprobe import Client
with Client({url!r}) as client:
    print(client.wait({id!r}, progress=True, poll_seconds=0.0).status)
"""


@pytest.fixture
def ended(server: PreparedServer) -> Experiment:
    """An experiment that ends at the third look; its name is markup."""
    half = {"iteration": 1250, "iterations": 2500}
    looks = [
        server.experiment(1, Status.QUEUED, name="<b>x[red]"),
        server.experiment(1, Status.RUNNING, name="<b>x[red]", progress=half),
        server.experiment(1, name="<b>x[red]"),
    ]
    server.prepare("GET", f"/experiments/{looks[0].id}", *((200, look) for look in looks))
    return looks[-1]


@pytest.fixture
def kernel() -> Iterator[BlockingKernelClient]:
    manager, client = start_new_kernel()
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


# What the kernel's libraries warn of is theirs.
@pytest.mark.filterwarnings("ignore")
def test_a_notebook_has_a_bar_that_moves(
    server: PreparedServer, ended: Experiment, kernel: BlockingKernelClient
) -> None:
    messages: list[tuple[str, dict[str, object]]] = []
    reply = kernel.execute_interactive(
        CODE.format(url=server.url, id=ended.id),
        timeout=60,
        output_hook=lambda message: messages.append((message["msg_type"], message["content"])),
    )
    assert reply["content"]["status"] == "ok", messages
    drawn = [content["data"]["text/html"] for kind, content in messages if "display_data" in kind]  # type: ignore[index]
    assert [f'value="{at}"' in markup for at, markup in zip((0, 1250, 2500), drawn[1:], strict=True)] == [True] * 3
    assert "&lt;b&gt;x[red]: succeeded, 2,500 of 2,500 iterations" in drawn[-1]
    assert len({str(content.get("transient")) for kind, content in messages if "display_data" in kind}) == 1
    printed = [content for kind, content in messages if kind == "stream"]
    assert [(content["name"], content["text"]) for content in printed] == [("stdout", "succeeded\n")]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_a_terminal_has_a_bar_on_standard_error(server: PreparedServer, ended: Experiment) -> None:
    parent, child = os.openpty()
    command = [sys.executable, "-c", CODE.format(url=server.url, id=ended.id)]
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=child, env=environment, text=True) as process:
        os.close(child)
        out, _ = process.communicate(timeout=30)
    drawn = os.read(parent, 65536).decode()
    os.close(parent)
    assert out == "succeeded\n"
    assert "<b>x[red]: succeeded, 2,500 of 2,500 iterations" in drawn
    assert "━" in drawn


def test_where_there_is_neither_nothing_is_said(server: PreparedServer, ended: Experiment) -> None:
    command = [sys.executable, "-c", CODE.format(url=server.url, id=ended.id)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert (done.stdout, done.stderr) == ("succeeded\n", "")
    # And nobody looks more often than the server's own patience needs.
    assert server.requests[0].query == {"wait": "30.0"}


def test_several_who_wait_share_the_terminal(
    server: PreparedServer, ended: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    server.prepare("GET", f"/experiments/{ended.id}", (200, ended))
    with Client(server.url) as client:
        began = time.monotonic()
        client.wait(ended.id, progress=True, on_progress=lambda _: client.wait(ended.id, progress=True))  # type: ignore[func-returns-value,arg-type]
        assert time.monotonic() - began < 10
    assert capsys.readouterr().out == ""
