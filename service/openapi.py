"""The OpenAPI document: `python -m service.openapi openapi/openapi.json`, or without a path to standard output."""

import argparse
import json
import sys
from pathlib import Path

from service.app import assemble


def text() -> str:
    """The document as it is committed: sorted, so that a change of the API is all that changes it."""
    return json.dumps(assemble().openapi(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> None:
    """Write the document."""
    parser = argparse.ArgumentParser(prog="python -m service.openapi", description="The OpenAPI document.")
    parser.add_argument("path", nargs="?", type=Path, help="where to write it; without, to standard output")
    path = parser.parse_args(arguments).path
    if path is not None:
        path.write_text(text(), encoding="utf-8")
    else:
        sys.stdout.write(text())


if __name__ == "__main__":
    main(sys.argv[1:])
