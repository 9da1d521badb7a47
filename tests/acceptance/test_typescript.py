"""A client in another language: generated from the contract, checked by its compiler, and used on the real service."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gradprobe import Client
from gradprobe.embedded import Stack

pytestmark = pytest.mark.documents

HERE = Path(__file__).with_name("typescript")
CONTRACT = Path(__file__).parents[2] / "openapi" / "openapi.json"
#: What has a default may be left out of a request.
GENERATE = ("node_modules/.bin/openapi-typescript", str(CONTRACT), "-o", "contract.ts", "--default-non-nullable=false")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program, the compiler, and the client that was generated."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: nothing can generate and compile TypeScript")
    folder = tmp_path_factory.mktemp("client") / "typescript"
    shutil.copytree(HERE, folder)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=180)
    if done.returncode:
        pytest.skip(f"npm could not fetch the generator: {done.stderr.strip()[-300:]}")
    run(folder, *GENERATE)
    return folder


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_generated_client_submits_and_reads_gradients(project: Path, stack: Stack, client: Client) -> None:
    run(project, "node_modules/.bin/tsc")
    told = json.loads(run(project, "node", "follow.js", stack.url))
    assert (told["status"], told["refused"]) == ("succeeded", "EXPERIMENT_NOT_FOUND")
    series = client.gradients(told["id"], of="outputs", statistics=["norm"])
    assert list(told["layers"]) == list(series.names)
    assert np.allclose([told["layers"][name] for name in series.names], series.matrix("norm"), rtol=1e-6)


def test_the_compiler_refuses_what_the_contract_does_not_have(project: Path) -> None:
    program = project / "follow.ts"
    text = program.read_text("utf-8")
    program.write_text(text.replace('activation: "tanh"', 'activation: "tahn"'), "utf-8")
    done = subprocess.run(["node_modules/.bin/tsc"], cwd=project, capture_output=True, text=True, check=False)
    program.write_text(text, "utf-8")
    assert done.returncode != 0
    assert '"tahn"' in done.stdout


def test_it_is_the_document_s_program() -> None:
    page = (CONTRACT.parents[1] / "docs" / "how-to" / "other-languages.md").read_text("utf-8")
    assert (HERE / "follow.ts").read_text("utf-8") in page
    versions = json.loads((HERE / "package.json").read_text("utf-8"))["dependencies"]
    assert all(f"{name}@{version}" in page for name, version in versions.items())
