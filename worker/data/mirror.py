"""Public HTTPS mirrors of the compressed IDX files."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx

from worker.data.files import DatasetFile, SourceFailed

# A closed network must fail fast, a slow one may take its time.
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_MAXIMUM_SECONDS = 300.0


@dataclass(frozen=True)
class Mirror:
    """A web folder that holds `<file>.gz` for each file."""

    url: str

    @property
    def description(self) -> str:
        return self.url

    def fetch(self, files: Sequence[DatasetFile]) -> Iterator[tuple[DatasetFile, bytes]]:
        try:
            with httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client:
                for file in files:
                    yield file, file.unpack(self._download(client, file))
        # ImportError and ValueError: the environment names a proxy that httpx can't use.
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ImportError, ValueError) as error:
            raise SourceFailed(" ".join(str(error).split()) or type(error).__name__) from error

    def _download(self, client: httpx.Client, file: DatasetFile) -> bytes:
        deadline = time.monotonic() + _MAXIMUM_SECONDS
        content = bytearray()
        with client.stream("GET", f"{self.url.rstrip('/')}/{file.name}.gz") as response:
            if not response.is_success:
                raise SourceFailed(f"{file.name}.gz: HTTP {response.status_code}")
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > file.maximum_size:
                    raise SourceFailed(f"{file.name}.gz is longer than the file can be")
                if time.monotonic() > deadline:
                    raise SourceFailed(f"{file.name}.gz took more than {_MAXIMUM_SECONDS:.0f} s")
        return bytes(content)
