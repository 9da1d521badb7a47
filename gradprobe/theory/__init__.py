"""What mean-field theory says of a network at initialization, by quadrature and before any training.

`meanfield` has the maps and fixed points of infinitely wide layers, `prediction` applies them layer by layer to one
spec. NumPy only: no torch, no training.
"""

from gradprobe.theory.prediction import LayerPrediction, Prediction, predict

__all__ = ["LayerPrediction", "Prediction", "predict"]
