"""The hooks: capture every layer's gradients in a user's module without changing it, and reduce them in bulk.

Shapes in this package: S recorded steps, L layers, N elements of a layer's tensor, B batch, U units, K statistics.
"""

from gradprobe.probe.attach import Observer, Probe, attach
from gradprobe.probe.collector import Captured, Measured
from gradprobe.probe.compiled import is_kept
from gradprobe.probe.native_collector import warm_up
from gradprobe.probe.tap import Recording, Tap

__all__ = ["Captured", "Measured", "Observer", "Probe", "Recording", "Tap", "attach", "is_kept", "warm_up"]
