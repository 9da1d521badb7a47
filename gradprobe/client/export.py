"""A file that the server made of an experiment."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

ExportForm = Literal["csv", "parquet", "arrow", "tensorboard", "png", "html"]
ExportTable = Literal["layers", "metrics", "histograms"]

#: A file's name as this service gives them, which leads to no other directory and hides nothing.
_NAME: Final = re.compile(r'filename="([A-Za-z0-9_][A-Za-z0-9_.\-]{0,200})"')


@dataclass(frozen=True, slots=True)
class Export:
    """A file's content, and the name that the server gives it."""

    content: bytes
    file_name: str

    @classmethod
    def of_answer(cls, content: bytes, disposition: str, experiment_id: str, form: str) -> Self:
        """From an answer's body and its `Content-Disposition`."""
        found = _NAME.search(disposition)
        return cls(content, found[1] if found else f"{re.sub(r'[^A-Za-z0-9_]', '_', experiment_id)}.{form}")

    def save(self, destination: str | os.PathLike[str] = ".", *, overwrite: bool = True) -> Path:
        """Write it to a file, or under its own name into a directory that is there; returns where it is.

        Raises:
            FileExistsError: it is there already, and is not to be overwritten.
            OSError: it can't be written.
        """
        path = Path(destination)
        if path.is_dir():
            path /= self.file_name
        with path.open("wb" if overwrite else "xb") as file:
            file.write(self.content)
        return path
