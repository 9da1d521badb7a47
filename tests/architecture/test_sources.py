"""Sizes, docstrings and words: what is promised of every source file."""

import ast
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("gradprobe", "service", "worker", "benchmarks", "tests")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
LONGEST_FILE = 400
LONGEST_FUNCTION = 60
#: Whatever fetches something asks the operator's own settings; assembled, so that this file passes its own test.
FORBIDDEN = [
    ".".join(parts) for parts in (("pypi", "org"), ("registry", "npmjs", "org"), ("download", "pytorch", "org"))
]
GENERATED = {"build", "dist", "__pycache__", "node_modules"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    assert len(SOURCES) > 50
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def test_no_file_is_too_long() -> None:
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_function_is_too_long(trees: dict[Path, ast.Module]) -> None:
    too_long = {}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, Function) and (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION:
                too_long[f"{relative(path)}::{node.name}"] = length
    assert too_long == {}


def test_imports_are_absolute(trees: dict[Path, ast.Module]) -> None:
    found = [
        f"{relative(path)}:{node.lineno}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert found == []


def undocumented(tree: ast.Module, name: str) -> Iterator[str]:
    """The module, and its public classes, functions and methods, where they have no docstring."""
    if tree.body and not ast.get_docstring(tree):
        yield name
    yield from undocumented_in(tree, name)


def undocumented_in(parent: ast.Module | ast.ClassDef, name: str) -> Iterator[str]:
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield f"{name}::{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from undocumented_in(node, f"{name}::{node.name}")


def test_every_public_name_of_the_library_has_a_docstring(trees: dict[Path, ast.Module]) -> None:
    found: list[str] = []
    for path, tree in trees.items():
        # Every migration has the same two functions, which Alembic names and describes.
        if path.is_relative_to(ROOT / "gradprobe") and path.parent.name != "versions":
            found += undocumented(tree, relative(path))
    assert found == []


def test_a_missing_docstring_is_found() -> None:
    tree = ast.parse(
        '"""A module."""\nclass A:\n    """A class."""\n    def b(self): ...\n    def _c(self): ...\ndef d(): ...'
    )
    assert list(undocumented(tree, "m")) == ["m::A::b", "m::d"]
    assert list(undocumented(ast.parse("x = 1"), "m")) == ["m"]


def test_every_dependency_says_what_it_buys() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = {name for group in groups for name in group if not name.startswith(f"{project['name']}[")}
    explained = set(re.findall(r'^ *"([^"]+)", *# *\w.+$', text, flags=re.MULTILINE))
    assert len(wanted) > 20
    assert wanted - explained == set()


def project_files() -> Iterator[Path]:
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in GENERATED and not name.endswith(".egg-info")]
        folders[:] = [name for name in folders if not name.startswith(".") or name == ".github"]
        yield from (path for path in (Path(folder) / name for name in files) if path.stat().st_size < 4 * 1024 * 1024)


def test_no_file_names_a_package_registry() -> None:
    files = list(project_files())
    assert Path(__file__) in files
    found = [
        (relative(path), word) for path in files for word in FORBIDDEN if word.encode() in path.read_bytes().lower()
    ]
    assert found == []
