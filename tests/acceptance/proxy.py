"""nginx as the documents have it set up, in front of services of a test: `python -m tests.acceptance.proxy` finds one.

It is a program of the operating system, and part of neither the product nor its environment: what stands in front of a
team's server does not come from Python's index either, and the documents' lines are to be read by the real thing.
"""

import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx
from markdown_it import MarkdownIt

from gradprobe.embedded.broker import free_port
from gradprobe.embedded.children import Child
from tests.acceptance.conftest import until

PAGE: Final = Path(__file__).parents[2] / "docs" / "how-to" / "serve-a-team.md"
#: Which service answered, and which had been tried before it.
SERVED_BY: Final = "x-served-by"
MISSING: Final = (
    "These tests need nginx: on Debian as root `apt-get install nginx`, "
    "or put the path of the program into $GRADPROBE_TEST_NGINX."
)
_UNPACKED: Final = Path(sys.prefix) / "nginx" / "usr" / "sbin" / "nginx"
_DOWNLOAD_SECONDS: Final = 120
#: What stands in nginx's own main file and is no business of the page, with everything it writes in one directory. One
#: process: several would each take the services in turn by themselves, and outlive a master that is killed.
_MAIN: Final = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    add_header {served_by} $upstream_addr always;
{site}
}}
"""


class ProxyMissing(Exception):
    """No nginx here; the message says what to install."""


def executable() -> str | None:
    """The path of nginx: the one that is named, the system's, or one that `set_up` unpacked."""
    if named := os.environ.get("GRADPROBE_TEST_NGINX"):
        return named
    # Where only root looks for programs, too: it runs as anybody.
    found = shutil.which("nginx", path=os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/usr/local/sbin")))
    return found or (str(_UNPACKED) if _UNPACKED.exists() else None)


def set_up() -> None:
    """Fetch Debian's where there is none. Raises ProxyMissing."""
    if not executable() and shutil.which("apt-get"):
        sys.stdout.write("== nginx for the tests of several services\n")
        # Unpacked and not installed: installed, it would be started, on a port of this machine, now and at every boot.
        with TemporaryDirectory() as directory, suppress(OSError, subprocess.TimeoutExpired):
            Path(directory).chmod(0o755)  # under root apt fetches as another user
            for command in (["apt-get", "download", "-qq", "nginx"], ["sh", "-c", f"dpkg-deb -x *.deb {_unpacked()}"]):
                subprocess.run(command, cwd=directory, timeout=_DOWNLOAD_SECONDS, capture_output=True, check=False)
    if not executable():
        raise ProxyMissing(MISSING)


def _unpacked() -> Path:
    return _UNPACKED.parents[2]


def site() -> str:
    """The site as the page has it, of two services."""
    tokens = MarkdownIt().parse(PAGE.read_text("utf-8"))
    (found,) = (token.content for token in tokens if token.type == "fence" and token.info == "nginx")
    return str(found)


def changed(text: str, *changes: tuple[str, str]) -> str:
    """The text with other values; each of the old ones must be there, once."""
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in\n{text}"
        text = text.replace(old, new)
    return text


@dataclass(frozen=True)
class Certificate:
    """A certificate of 127.0.0.1 that signed itself, and its key."""

    certificate: Path
    key: Path

    @classmethod
    def made(cls, directory: Path) -> "Certificate":
        """A fresh one."""
        made = cls(directory / "certificate.pem", directory / "key.pem")
        command = [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1",
            "-out", str(made.certificate), "-keyout", str(made.key),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=30)
        return made

    def context(self) -> ssl.SSLContext:
        """What trusts this one alone."""
        return ssl.create_default_context(cafile=str(self.certificate))


@contextmanager
def proxied(text: str, ports: Sequence[int], certificate: Certificate, folder: Path) -> Iterator[str]:
    """The URL of an nginx with this site in front of services on these ports. Raises ProxyMissing."""
    program = executable()
    if program is None:
        raise ProxyMissing(MISSING)
    port = free_port()
    here = changed(
        text,
        ("server 10.0.0.11:8000;", f"server 127.0.0.1:{ports[0]};"),
        ("server 10.0.0.12:8000;", f"server 127.0.0.1:{ports[1]};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/ssl/gradprobe.pem", str(certificate.certificate)),
        ("/etc/ssl/private/gradprobe.key", str(certificate.key)),
    )
    folder.mkdir()
    file = folder / "nginx.conf"
    file.write_text(_MAIN.format(directory=folder, served_by=SERVED_BY, site=here), "utf-8")
    child = Child("nginx", (program, "-e", "stderr", "-p", str(folder), "-c", str(file)), folder / "log", os.environ)
    child.start()
    try:
        url = f"https://127.0.0.1:{port}"
        with httpx.Client(verify=certificate.context(), trust_env=False) as client:
            until(lambda: _answers(child, client, url), 20, "nginx's first answer")
        yield url
    finally:
        child.stop()


def _answers(child: Child, client: httpx.Client, url: str) -> bool:
    child.check()
    with suppress(httpx.TransportError):
        return client.get(f"{url}/livez").status_code == httpx.codes.OK
    return False


if __name__ == "__main__":
    try:
        set_up()
    except ProxyMissing as error:
        # The tests say so too, and fail; all others are run all the same.
        sys.stdout.write(f"! {error}\n")
