"""The arrows between packages: the contracts hold, they bite when broken, and no imports go round in a circle."""

import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("gradprobe", "service", "worker")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--config", "pyproject.toml", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The packages, to be broken."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def add_import(folder: Path, file: str, statement: str) -> None:
    with (folder / file).open("a", encoding="utf-8") as module:
        module.write(f"\n{statement}\n")


def test_the_contracts_hold() -> None:
    run = lint_imports(ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 broken" in run.stdout


@pytest.mark.parametrize(
    ("file", "statement", "contract"),
    [
        ("gradprobe/spec.py", "import torch", "only gradprobe.probe imports torch"),
        ("gradprobe/spec.py", "import torch", "service speaks to gradprobe alone"),
        ("gradprobe/settings.py", "import service.app", "worker speaks to gradprobe alone"),
        ("gradprobe/settings.py", "import worker.app", "service speaks to gradprobe alone"),
        ("gradprobe/errors.py", "import worker.app", "gradprobe knows neither service nor worker"),
        ("gradprobe/statistics.py", "import sqlalchemy", "what defines a statistic or a spec"),
        ("gradprobe/store/tables.py", "import gradprobe.store.series", "the store's layers point downwards"),
        ("worker/__init__.py", "import fastapi", "worker speaks to gradprobe alone"),
    ],
)
def test_a_contract_that_is_broken_is_named(copied: Path, file: str, statement: str, contract: str) -> None:
    add_import(copied, file, statement)
    run = lint_imports(copied)
    assert run.returncode != 0, run.stdout
    report = " ".join(run.stdout.partition("Broken contracts\n")[2].split())
    assert contract in report, run.stdout


def circles(graph: grimp.ImportGraph) -> list[tuple[str, ...]]:
    """Every import that leads back to where it came from."""
    found = []
    for module in sorted(graph.modules):
        for imported in graph.find_modules_directly_imported_by(module):
            back = graph.find_shortest_chain(imported, module)
            if back is not None:
                found.append((module, *back))
    return found


def test_no_imports_go_round_in_a_circle() -> None:
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    assert len(graph.modules) > 20
    assert circles(graph) == []


def test_a_circle_is_found() -> None:
    graph = grimp.ImportGraph()
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")):
        graph.add_import(importer=importer, imported=imported)
    assert sorted(circles(graph)) == [("a", "b", "c", "a"), ("b", "c", "a", "b"), ("c", "a", "b", "c")]


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("service.app", {"torch", "worker"}),
        ("gradprobe.client", {"torch", "sqlalchemy", "celery", "fastapi", "pydantic_settings"}),
        ("gradprobe.cli.app", {"torch", "sqlalchemy", "celery", "fastapi", "pydantic_settings"}),
        ("gradprobe.spec", {"torch", "sqlalchemy", "celery", "httpx", "numpy"}),
    ],
)
def test_what_an_import_loads(module: str, unwanted: set[str]) -> None:
    """What contracts can't see: that a package is not loaded at run time by some other way."""
    code = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    )
    loaded = set(run.stdout.split())
    assert module in loaded
    assert loaded & unwanted == set()
