"""What can go wrong with the embedded stack."""

from gradprobe.errors import GradprobeError


class StackError(GradprobeError):
    """The stack on this machine can't run."""

    code = "STACK"


class DirectoryInUse(StackError):
    """Another stack uses this data directory."""

    code = "DIRECTORY_IN_USE"


class PortBusy(StackError):
    """Another program listens on this port."""

    code = "PORT_BUSY"


class NotReady(StackError):
    """A part of the stack did not become ready in time."""

    code = "NOT_READY"


class ChildDied(StackError):
    """A process of the stack ended by itself; `log` holds its last lines."""

    code = "CHILD_DIED"

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log
