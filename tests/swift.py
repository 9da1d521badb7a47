"""OpenStack Swift with its S3 API: proxy, accounts, containers and objects as processes of their own on one disk.

Large object stores are made of it; here each of its four servers runs once. The directory's file system must have
extended attributes.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.processes import wait_for_port

_KINDS = ("account", "container", "object")
_DEFAULT = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {directory}
devices = {directory}/devices
user = {user}
mount_check = false
disable_fallocate = true
workers = 0
log_level = WARNING
"""
_PROXY = """[pipeline:main]
pipeline = catch_errors cache listing_formats bulk s3api tempauth slo symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{user} = {secret} .admin
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
"""
_FILTERS = ("catch_errors", "listing_formats", "bulk", "s3api", "slo", "symlink")


@contextmanager
def serving(directory: Path, bucket: str, access_key: str, secret_key: str) -> Iterator[str]:
    """Yields the address of the proxy, whose only user this is; an access key is `ACCOUNT:USER`."""
    directory = directory.resolve()
    (directory / "devices" / "disk").mkdir(parents=True)
    (directory / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n[swift-constraints]\n")
    ports = dict(zip(("proxy", *_KINDS), _free_ports(1 + len(_KINDS)), strict=True))
    for kind in _KINDS:
        text = f"[pipeline:main]\npipeline = {kind}-server\n[app:{kind}-server]\nuse = egg:swift#{kind}\n"
        _configure(directory, kind, ports[kind], text)
        for arguments in ("create 4 1 0", f"add r1z1-127.0.0.1:{ports[kind]}/disk 1", "rebalance"):
            _run(directory, "swift-ring-builder", f"{kind}.builder", *arguments.split())
    account, _, user = access_key.partition(":")
    filters = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in _FILTERS)
    _configure(
        directory, "proxy", ports["proxy"], _PROXY.format(account=account, user=user, secret=secret_key) + filters
    )
    address = f"http://127.0.0.1:{ports['proxy']}"
    with ExitStack() as stack:
        for kind, port in ports.items():
            process = stack.enter_context(_server(directory, kind))
            wait_for_port(port, process)
        _make_bucket(address, bucket, access_key, secret_key)
        yield address


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [listener.getsockname()[1] for listener in listeners]


def _configure(directory: Path, kind: str, port: int, text: str) -> None:
    user = os.environ.get("USER") or "root"
    head = _DEFAULT.format(port=port, directory=directory, user=user)
    (directory / f"{kind}-server.conf").write_text(head + text)


def _command(name: str) -> list[str]:
    return [sys.executable, "-W", "ignore", str(Path(sys.executable).with_name(name))]


def _run(directory: Path, name: str, *arguments: str) -> None:
    done = subprocess.run([*_command(name), *arguments], cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode > 1:  # 1: a warning
        raise RuntimeError(done.stdout + done.stderr)


@contextmanager
def _server(directory: Path, kind: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [*_command(f"swift-{kind}-server"), str(directory / f"{kind}-server.conf")]
    with subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=sys.stderr) as process:
        try:
            yield process
        finally:
            process.terminate()


def _make_bucket(address: str, bucket: str, access_key: str, secret_key: str) -> None:
    """By a signed address, since the client that is tested makes none."""
    import httpx  # noqa: PLC0415 - what else is started here needs neither
    import obstore  # noqa: PLC0415
    from obstore.store import S3Store  # noqa: PLC0415

    options: Any = {"allow_http": True}
    keys = {"access_key_id": access_key, "secret_access_key": secret_key}
    store = S3Store(bucket, endpoint=address, region="us-east-1", client_options=options, **keys)
    httpx.put(obstore.sign(store, "PUT", "", timedelta(seconds=60))).raise_for_status()
