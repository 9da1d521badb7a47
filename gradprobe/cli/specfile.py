"""A spec from a file, from options and from `--set path=value`, in this order: the later wins."""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from gradprobe.cli.exits import usage
from gradprobe.parts.faults import faults
from gradprobe.spec import Spec

#: Where each option's value goes in the spec.
OPTION_PATHS = {
    "name": "name",
    "dataset": "dataset.name",
    "activation": "network.activation",
    "initialization": "network.initialization",
    "depth": "network.depth",
    "width": "network.width",
    "optimizer": "optimizer.name",
    "learning_rate": "optimizer.learning_rate",
    "iterations": "training.iterations",
    "batch_size": "training.batch_size",
    "seed": "training.seed",
    "device": "training.device",
}
#: A number with an exponent, with or without a point.
_EXPONENT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$")


def build(
    source: str | None, options: Mapping[str, Any], tags: Iterable[str] = (), settings: Iterable[str] = ()
) -> dict[str, Any]:
    """The spec to send. The server fills in what is missing, and judges it.

    Args:
        source: a file's path, `-` for standard input, or None for an empty spec.
        options: values by the names in `OPTION_PATHS`; None means not given.
        tags: `key=value`.
        settings: `path.to.field=value`, the value JSON or else a string.
    """
    spec = read(source) if source else {}
    for name, value in options.items():
        if value is not None:
            put(spec, OPTION_PATHS[name], value)
    for tag in tags:
        key, value = _split(tag, "--tag", "key=value")
        put(spec, "tags", {**spec.get("tags", {}), key: value})
    for setting in settings:
        path, text = _split(setting, "--set", "network.width=20")
        put(spec, path, _value(text))
    return spec


def validated(spec: dict[str, Any]) -> Spec:
    """The spec with every default filled in, where no server judges it. Raises the usage error of its faults."""
    try:
        return Spec.model_validate(spec)
    except ValidationError as error:
        raise usage("; ".join(faults(error, Spec, spec))) from error


def put(spec: dict[str, Any], path: str, value: Any) -> None:
    """Set the field at a dotted path, making objects on the way; a bare name on it becomes an object of that name."""
    *parents, last = path.split(".")
    if not all((*parents, last)):
        raise usage(f"{path!r} is not a path to a field; write it like network.width")
    place = spec
    for parent in parents:
        inner = place.get(parent)
        if isinstance(inner, str):
            inner = {"name": inner}
        elif inner is None:
            inner = {}
        if not isinstance(inner, dict):
            raise usage(f"{path!r}: {parent!r} holds {json.dumps(inner)}, which has no fields")
        place[parent] = inner
        place = inner
    place[last] = value


def read(source: str) -> dict[str, Any]:
    """The mapping in a JSON or YAML file, or in JSON on standard input.

    Raises:
        CommandError: it can't be read, or is no mapping.
    """
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise usage(f"The spec {source} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise usage(f"The spec {source} is not UTF-8 text") from error
    spec = _yaml(text, source) if source.endswith((".yaml", ".yml")) else _json(text, source)
    if not isinstance(spec, dict):
        raise usage(f"The spec {source} must be an object with fields, not {type(spec).__name__}")
    return spec


def _json(text: str, source: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        yaml = "" if source.endswith(".json") else "; a file in YAML ends in .yaml or .yml"
        raise usage(f"The spec {source} is not JSON: {error}{yaml}") from error


def _yaml(text: str, source: str) -> Any:
    try:
        yaml = import_module("yaml")
    except ModuleNotFoundError as error:
        raise usage(
            f"Reading {source} needs PyYAML; install it with `pip install pyyaml`, or give the spec as JSON"
        ) from error

    class Loader(yaml.SafeLoader):  # type: ignore[name-defined, misc]
        """In YAML 1.1, PyYAML's, 1e-3 is a string; in YAML 1.2, as in JSON, it is the number that was meant."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))
    loader = Loader(text)
    try:
        return loader.get_single_data() or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise usage(f"The spec {source} is not YAML: {place}{getattr(error, 'problem', error)}") from error
    finally:
        loader.dispose()


def _split(given: str, option: str, example: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not (name and equals):
        raise usage(f"{option} {given!r} has no value; write it like {option} {example}")
    return name, value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON")


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text
