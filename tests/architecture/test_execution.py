"""Nothing is unpickled, evaluated or imported by a name that came from outside: no source has the means to."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("gradprobe", "service", "worker") for path in (ROOT / folder).rglob("*.py"))
#: Modules whose formats run code when they are read.
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "jsonpickle", "joblib", "shelve", "marshal", "runpy"}
#: Calls that run what they are given, by the end of their dotted name.
CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "torch.load",
    "torch.jit.load",
    "torch.hub.load",
    "np.load",
    "numpy.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "import_string",
}
#: Where a module is imported by name, each from a table or a word in that very file.
BY_NAME = {
    "gradprobe/__init__.py",
    "gradprobe/cli/exits.py",
    "gradprobe/cli/specfile.py",
    "gradprobe/client/optional.py",
    "worker/app.py",
}


def dotted(node: ast.expr) -> str:
    """`a.b.c`, or an empty string for what is no name."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{dotted(value)}.{name}".lstrip(".")
    return ""


def imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name.partition(".")[0] for alias in names]
        case ast.ImportFrom(module=str() as module):
            return [module.partition(".")[0]]
    return []


def dangers(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        yield from (module for module in imported(node) if module in MODULES)
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        # A method of that name, such as a network's eval(), is another thing: only whole names count.
        if name in CALLS:
            yield name
        for keyword in node.keywords:
            on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            if on and keyword.arg in ("shell", "allow_pickle"):
                yield f"{name}({keyword.arg}=True)"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from cloudpickle.compat import pickle", ["cloudpickle"]),
        ("def f():\n    import marshal", ["marshal"]),
        ("torch.load(path)", ["torch.load"]),
        ("np.load(path, allow_pickle=True)", ["np.load", "np.load(allow_pickle=True)"]),
        ("subprocess.run(text, shell=True)", ["subprocess.run(shell=True)"]),
        ("eval(text)", ["eval"]),
        ("network.eval()", []),
        ("re.compile(text)", []),
        ("safetensors.torch.load(content)", []),
        ("import json", []),
    ],
)
def test_what_runs_code_is_seen(source: str, found: list[str]) -> None:
    assert list(dangers(ast.parse(source))) == found


def test_no_source_runs_what_it_is_given() -> None:
    assert len(SOURCES) > 100
    found = {
        str(path.relative_to(ROOT)): list(dangers(ast.parse(path.read_text(encoding="utf-8")))) for path in SOURCES
    }
    assert {name: dangers for name, dangers in found.items() if dangers} == {}


def test_modules_are_imported_by_name_in_these_places_alone() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and dotted(node.func).endswith("import_module")
    }
    assert found == BY_NAME
