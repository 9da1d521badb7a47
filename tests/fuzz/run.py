"""Schemathesis against the running service, all checks and stateful links: `python -m tests.fuzz.run --cases 20000`.

Each round has a seed of its own and is a whole run: examples, coverage, fuzzing, stateful. It ends when so many cases
were generated, or with the first round that found something.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from gradprobe.settings import Settings
from gradprobe.store import migrate
from tests.conftest import _server
from tests.integration.service.serving import serving

ROOT = Path(__file__).parents[2]
_CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@dataclass(frozen=True)
class Round:
    """What one run of Schemathesis came to."""

    cases: int
    failures: int
    errors: int
    output: str


def fuzz(url: str, examples: int, seed: int, phases: str = "examples,coverage,fuzzing,stateful") -> Round:
    """One run against the service at `url`, with so many examples an operation."""
    with TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(_CONFIGURATION),
            "run", str(ROOT / "openapi" / "openapi.json"), "--url", url, "--phases", phases,
            "--max-examples", str(examples), "--seed", str(seed), "--continue-on-failure", "--no-shrink",
            "--report", "json", "--report-json-path", str(report),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=directory, env=_environment(), capture_output=True, text=True, check=False)
        if not report.exists():
            raise RuntimeError(done.stdout + done.stderr)
        found = json.loads(report.read_text(encoding="utf-8"))
    cases = found["test_cases"]
    return Round(cases["generated"], cases["unique_failures"], cases["errored"], done.stdout)


def settings_for_fuzzing(directory: Path, redis_url: str) -> Settings:
    """A service whose streams end after a second, so that their end is seen."""
    return Settings(data_directory=directory, redis_url=redis_url, stream_seconds=1.0, watch_seconds=0.05)


@contextmanager
def _served() -> Iterator[str]:
    with TemporaryDirectory() as directory, _server("valkey") as broker:
        settings = settings_for_fuzzing(Path(directory), f"{broker}/0")
        migrate.upgrade(settings.database)
        with serving(settings) as client:
            yield str(client.base_url)


def _environment() -> dict[str, str]:
    return {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(ROOT), "HOME": "/tmp"}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--examples", type=int, default=100, help="an operation and round")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cases, seed = 0, arguments.seed
    with _served() as url:
        while cases < arguments.cases:
            found = fuzz(url, arguments.examples, seed)
            cases, seed = cases + found.cases, seed + 1
            sys.stdout.write(
                f"seed {seed - 1}: {found.cases} cases, {found.failures} failures, {found.errors} errors\n"
            )
            sys.stdout.flush()
            if found.failures or found.errors:
                sys.exit(found.output)
    sys.stdout.write(f"{cases} cases: 0 server errors, 0 contract violations\n")


if __name__ == "__main__":
    main()
