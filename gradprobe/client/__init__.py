"""The Python client: `Client`, the arrays it returns and the errors it raises."""

from gradprobe.client.arrays import Histograms, Layer, LayerCounts, Metrics, QuantileSeries, Series
from gradprobe.client.client import Client, GradientKind
from gradprobe.client.errors import ProblemError, ServerUnreachable, UnexpectedAnswer, UnusableKey, WaitTimeout
from gradprobe.client.events import Event, EventKind
from gradprobe.client.export import Export
from gradprobe.client.retries import Retries
from gradprobe.client.transport import DEFAULT_URL

__all__ = [
    "DEFAULT_URL",
    "Client",
    "Event",
    "EventKind",
    "Export",
    "GradientKind",
    "Histograms",
    "Layer",
    "LayerCounts",
    "Metrics",
    "ProblemError",
    "QuantileSeries",
    "Retries",
    "Series",
    "ServerUnreachable",
    "UnexpectedAnswer",
    "UnusableKey",
    "WaitTimeout",
]
