"""Exit codes, and the errors that the command line itself raises."""

from importlib import import_module
from types import ModuleType

from gradprobe.errors import GradprobeError

OK = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130

EPILOG = """\
**Exit codes**

- 0: done; with `--watch` and `watch`, the experiment succeeded
- 1: the service answered with an error, or the experiment failed or was cancelled
- 2: the command was not given correctly
- 3: no server answers at the URL
- 130: interrupted with Ctrl-C
"""


class CommandError(GradprobeError):
    """The command can't be carried out as given."""

    code = "COMMAND"

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def usage(message: str) -> CommandError:
    """An error in how the command was given."""
    return CommandError(message, USAGE)


def require(module: str, extra: str) -> ModuleType:
    """Import a part that a client's installation may lack.

    Raises:
        CommandError: a library is missing; the message says which extra brings it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise usage(
            f"This command needs {error.name}, which is not installed; get it with: pip install 'gradprobe[{extra}]'"
        ) from error
