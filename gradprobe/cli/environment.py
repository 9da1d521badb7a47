"""Settings from the environment, for the commands that run a part of the server. Imported only by these."""

from pathlib import Path

from pydantic import ValidationError

from gradprobe.cli.exits import usage
from gradprobe.settings import Settings


def read_settings(data_directory: Path | None = None) -> Settings:
    """The settings, with another data directory where one is given.

    Raises:
        CommandError: a variable's value is refused; the message names it.
    """
    try:
        if data_directory is None:
            return Settings()
        return Settings(data_directory=data_directory.expanduser().absolute())
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise usage(f"The settings in the environment are refused: {faults}") from error
    except OSError as error:
        raise usage(f"A secret's file can't be read: {error}") from error
