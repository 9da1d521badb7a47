"""The whole stack on one machine: broker, worker and API as child processes that end with their parent.

with Stack(Settings(data_directory=Path("data"))) as stack:
    print(stack.url)
"""

from gradprobe.embedded.errors import ChildDied, DirectoryInUse, NotReady, PortBusy, StackError
from gradprobe.embedded.stack import Stack

__all__ = ["ChildDied", "DirectoryInUse", "NotReady", "PortBusy", "Stack", "StackError"]
