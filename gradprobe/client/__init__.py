"""The Python client: `Client` and `AsyncClient`, the arrays they return and the errors they raise."""

from gradprobe.client.arrays import Histograms, Layer, LayerCounts, Metrics, QuantileSeries, Series
from gradprobe.client.async_client import AsyncClient
from gradprobe.client.client import Client
from gradprobe.client.errors import (
    MissingLibrary,
    ProblemError,
    ServerUnreachable,
    UnexpectedAnswer,
    UnusableKey,
    WaitTimeout,
)
from gradprobe.client.events import Event, EventKind
from gradprobe.client.export import Export
from gradprobe.client.requests import GradientKind
from gradprobe.client.retries import Retries
from gradprobe.client.server import DEFAULT_URL

__all__ = [
    "DEFAULT_URL",
    "AsyncClient",
    "Client",
    "Event",
    "EventKind",
    "Export",
    "GradientKind",
    "Histograms",
    "Layer",
    "LayerCounts",
    "Metrics",
    "MissingLibrary",
    "ProblemError",
    "QuantileSeries",
    "Retries",
    "Series",
    "ServerUnreachable",
    "UnexpectedAnswer",
    "UnusableKey",
    "WaitTimeout",
]
