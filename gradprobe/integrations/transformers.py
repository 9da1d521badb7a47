"""A callback for Hugging Face's `Trainer`. Needs `transformers`: pip install 'gradprobe[worker,transformers]'."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gradprobe.watching import Watching, watch


class GradprobeCallback(TrainerCallback):  # type: ignore[misc]  # without Transformers its class is unknown
    """Watches what `train` trains: `Trainer(callbacks=[GradprobeCallback()])`, then `callback.watching.diagnosis()`.

    The loss is the `loss` of the model's output, as Hugging Face's models have it.

    Args:
        options: as of `gradprobe.watch`; the optimizer and the number of steps are found by the callback.

    Attributes:
        watching: what holds the measurements; None before `train`.
    """

    def __init__(self, **options: Any) -> None:
        self.watching: Watching | None = None
        self._options = options

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Begin to watch."""
        self.watching = watch(others["model"], **{"iterations": state.max_steps, **self._options})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Take the hooks away."""
        if self.watching is not None:
            self.watching.end()
