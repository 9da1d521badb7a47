"""What the site has besides this directory's pages: the project's own documents, the contract, the command line."""

import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click
from typer.main import get_command
from typer.models import Context

_ROOT: Final = Path(__file__).parent.parent
_PROJECT: Final = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
_DECISIONS: Final = "decisions/"
_FENCE: Final = re.compile(r"^(\s*```\w+) .*$", re.MULTILINE)
_UPWARDS: Final = re.compile(r"\]\((?:\.\./)+(" + "|".join(map(re.escape, _PROJECT)) + r")")
_LINK: Final = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)#]*)(#[^)]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List every decision in the navigation."""
    _fill(config.nav or [])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies elsewhere or is made from the code."""
    for name in _PROJECT:
        files.append(File.generated(config, name, abs_src_path=str(_ROOT / name)))
    contract = _ROOT / "openapi" / "openapi.json"
    files.append(File.generated(config, "reference/openapi.json", abs_src_path=str(contract)))
    files.append(File.generated(config, "reference/command-line.md", content=_command_line()))
    files.append(File.generated(config, "reference/settings.md", content=_settings()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take away what only the tests read of a code block, and point links at what the site has."""
    markdown = _FENCE.sub(r"\1", markdown)
    source = page.file.src_uri
    if source in _PROJECT:
        return _LINK.sub(lambda link: _within(link, files), markdown)
    return _UPWARDS.sub(lambda link: "](" + "../" * source.count("/") + link[1], markdown)


def _within(link: re.Match[str], files: Files) -> str:
    """A link of a document in the root: into the site where that has its target, else the path as it is."""
    text, target, anchor = link[1], link[2].removeprefix("docs/"), link[3] or ""
    return f"[{text}]({target}{anchor})" if files.get_file_from_path(target) else text


def _fill(entries: list[Any]) -> None:
    for entry in entries:
        for title, below in entry.items() if isinstance(entry, dict) else ():
            if below == _DECISIONS:
                entry[title] = sorted(f"{_DECISIONS}{path.name}" for path in (_ROOT / "docs" / _DECISIONS).glob("*.md"))
            elif isinstance(below, list):
                _fill(below)


def _command_line() -> str:
    """Every command with its options, from the commands themselves."""
    from gradprobe.cli.app import app  # noqa: PLC0415 - the hooks are read before the path is set

    command = get_command(app)
    return get_docs_for_click(obj=command, ctx=Context(command), name="gradprobe", title="Command line")


def _settings() -> str:
    """Every setting with its default, from the fields themselves."""
    from gradprobe.settings import Settings  # noqa: PLC0415 - as above

    lines = [
        "# Settings",
        "",
        "Read once, at start, from the environment. A password is better given as a file: `GRADPROBE_…_FILE` names it.",
        "",
        "| variable | default | |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = "" if field.default_factory or field.default in (None, "", ()) else f"`{field.default}`"
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `GRADPROBE_{name.upper()}` | {default} | {meaning} |")
    return "\n".join(lines)
