"""The command line, `gradprobe`. Its client commands need httpx, pydantic, typer and rich, and nothing heavier."""

from gradprobe.cli.app import main, run

__all__ = ["main", "run"]
