"""What can go wrong between a client and its server."""

from gradprobe.errors import GradprobeError
from gradprobe.resources import Problem


class ProblemError(GradprobeError):
    """The server refused the request and said why."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.code = problem.code
        detail = problem.detail or problem.title
        # A server may have put the one fault into the detail already.
        told = [f"{fault.pointer}: {fault.message}" for fault in problem.errors if fault.message not in detail]
        faults = "; ".join(told)
        super().__init__(f"{detail.rstrip('.')}: {faults}" if faults else detail)

    @property
    def status(self) -> int:
        """The HTTP status of the answer."""
        return self.problem.status


class ServerUnreachable(GradprobeError):
    """No server answers there; start one with `gradprobe up`, or set --url or GRADPROBE_URL to where one runs."""

    code = "SERVER_UNREACHABLE"


class UnusableKey(GradprobeError):
    """This is no key: one begins with gp_ and has no spaces; see GRADPROBE_API_KEY and GRADPROBE_API_KEY_FILE."""

    code = "UNUSABLE_KEY"


class UnexpectedAnswer(GradprobeError):
    """The answer is not one that a Gradprobe server gives; `status` is its HTTP status."""

    code = "UNEXPECTED_ANSWER"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class WaitTimeout(GradprobeError, TimeoutError):
    """The experiment had not ended when the time to wait for it was over; it goes on."""

    code = "WAIT_TIMEOUT"


class MissingLibrary(GradprobeError, ImportError):
    """A library that this needs is not installed; the message says which extra brings it."""

    code = "MISSING_LIBRARY"
