"""`gradprobe keys` and `gradprobe serve`, on a real database."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from gradprobe import access
from gradprobe.cli import run
from gradprobe.resources import ExperimentPage
from tests.unit.gradprobe.prepared import PreparedServer

CommandLine = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[4]


@pytest.fixture
def cli(
    tmp_path: Path, sqlite_template: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    """Runs one command line on a database of its own; gives exit code, standard output, standard error."""
    shutil.copy(sqlite_template, tmp_path / "gradprobe.db")
    monkeypatch.setenv("GRADPROBE_DATA_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


def test_a_key_is_printed_once_and_never_listed(cli: CommandLine) -> None:
    code, out, err = cli("keys", "create", "alice", "--note", "laptop")

    assert (code, len(out.splitlines())) == (0, 1)
    assert access.is_key(out.strip())
    assert "shown this once" in err
    code, listed, _ = cli("keys", "list")
    assert code == 0
    for word in ("alice", "read, write", "laptop", out[:11]):
        assert word in listed
    assert out.strip() not in listed
    assert out.strip() not in cli("keys", "list", "--json")[1]


def test_what_is_printed_for_programs(cli: CommandLine) -> None:
    made = json.loads(cli("keys", "create", "ci@team", "--scope", "admin", "--expires", "never", "--json")[1])

    assert access.is_key(made["key"])
    assert (made["owner"], made["scopes"], made["expires_at"], made["note"]) == ("ci@team", ["admin"], None, None)
    listed = json.loads(cli("keys", "list", "--json")[1])
    assert listed == [{name: value for name, value in made.items() if name != "key"}]


def test_a_key_is_revoked_by_its_id_or_by_how_it_begins(cli: CommandLine) -> None:
    for field in ("id", "prefix"):
        made = json.loads(cli("keys", "create", "alice", "--json")[1])
        code, out, _ = cli("keys", "revoke", made[field])
        assert (code, made["id"] in out) == (0, True)
        [row] = [key for key in json.loads(cli("keys", "list", "--json")[1]) if key["id"] == made["id"]]
        assert row["revoked_at"] is not None
    code, _, err = cli("keys", "revoke", "gp_nothing")
    assert (code, "gradprobe keys list" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("with space",), "can't be an owner"),
        (("x" * 65,), "can't be an owner"),
        (("alice", "--expires", "soon"), "30d"),
        (("alice", "--expires", "0d"), "30d"),
        (("alice", "--scope", "everything"), "scope"),
    ],
)
def test_what_makes_no_key(cli: CommandLine, arguments: tuple[str, ...], told: str) -> None:
    code, out, err = cli("keys", "create", *arguments)

    assert (code, out) == (2, "")
    assert told in err
    assert json.loads(cli("keys", "list", "--json")[1]) == []
    assert "no key yet" in cli("keys", "list")[1]


def test_a_database_that_was_never_migrated_is_told_so(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "gradprobe.db").unlink()

    code, _, err = cli("keys", "create", "alice")

    assert code == 1
    assert "gradprobe migrate" in err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_a_server_that_others_can_reach_does_not_start_without_a_key(cli: CommandLine, host: str) -> None:
    code, out, err = cli("serve", "--host", host)

    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "gradprobe keys create" in err


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """`gradprobe serve` on every address of this machine, as a process; its URL on the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "gradprobe", "serve", "--host", "0.0.0.0", "--port", str(port)]
    environment = {"GRADPROBE_REDIS_URL": "redis://127.0.0.1:1/0", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(300):
                assert process.poll() is None, process.communicate()[1]
                with suppress(httpx.TransportError):
                    httpx.get(f"{url}/livez", trust_env=False)
                    break
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()


def test_a_server_that_others_can_reach_asks_this_machine_too(cli: CommandLine, request: pytest.FixtureRequest) -> None:
    secret = cli("keys", "create", "alice")[1].strip()
    url = request.getfixturevalue("served")

    assert httpx.get(f"{url}/experiments", trust_env=False).status_code == 401
    headers = {"Authorization": f"Bearer {secret}"}
    assert httpx.get(f"{url}/experiments", headers=headers, trust_env=False).status_code == 200


def test_a_key_is_sent_with_every_request(server: PreparedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.prepare("GET", "/experiments", (200, ExperimentPage(items=[], next_cursor=None)))

    assert run(["--url", server.url, "--api-key", "gp_option", "list"]) == 0
    monkeypatch.setenv("GRADPROBE_API_KEY", "gp_environment")
    assert run(["--url", server.url, "list"]) == 0

    assert [request.headers["authorization"] for request in server.requests] == [
        "Bearer gp_option",
        "Bearer gp_environment",
    ]
