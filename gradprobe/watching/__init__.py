"""`gradprobe.watch`: the gradients of a training loop that is not ours, and what they mean.

watching = gradprobe.watch(model, optimizer)
...                                # the loop, as it is
print(watching.diagnosis())
"""

from gradprobe.watching.handle import Verdict, Watching, watch

__all__ = ["Verdict", "Watching", "watch"]
