"""An ended experiment as a run of MLflow or of Weights & Biases: what it was asked for, what it came to, why.

Both tools are extras, imported where they are asked for: `pip install 'gradprobe[mlflow]'`, `'gradprobe[wandb]'`.
"""

from gradprobe.trackers.runs import Logged, log_to_mlflow, log_to_wandb

__all__ = ["Logged", "log_to_mlflow", "log_to_wandb"]
