"""A callback for Lightning's `Trainer`. Needs `lightning`: pip install 'gradprobe[worker,lightning]'."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from gradprobe.watching import Watching, watch


class GradprobeCallback(Callback):  # type: ignore[misc]  # without Lightning its class is unknown
    """Watches what `fit` trains: `Trainer(callbacks=[GradprobeCallback()])`, then `callback.watching.diagnosis()`.

    Args:
        submodule: the path of the module that `training_step` calls, such as "net"; the LightningModule itself by
            default, for those that call `self(batch)`.
        options: as of `gradprobe.watch`; the optimizer, the loss and the scaler are found by the callback.

    Attributes:
        watching: what holds the measurements; None before `fit`.
    """

    def __init__(self, submodule: str = "", **options: Any) -> None:
        self.watching: Watching | None = None
        self._submodule = submodule
        self._options = options

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.watching = watch(pl_module.get_submodule(self._submodule), scaler=scaler, **self._options)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        """Hear the loss."""
        if self.watching is not None:
            self.watching.record(loss=loss)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks away."""
        if self.watching is not None:
            self.watching.end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same, where `fit` ends early."""
        if self.watching is not None:
            self.watching.end(exception)
