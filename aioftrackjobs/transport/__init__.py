"""Sends requests to the server: interfaces, the adapter for httpx-like clients, and files."""

from aioftrackjobs.transport._base import (
    Departure,
    Download,
    FileBody,
    Headers,
    HttpClient,
    NetworkStream,
    OwnTransport,
    Transport,
    UpgradingTransport,
    WireRequest,
    WireResponse,
    Write,
    is_client,
)
from aioftrackjobs.transport._bounds import Bounds
from aioftrackjobs.transport._httpx import HttpxTransport
from aioftrackjobs.transport._redaction import hide_secrets, redact

__all__ = [
    "Bounds",
    "Departure",
    "Download",
    "FileBody",
    "Headers",
    "HttpClient",
    "HttpxTransport",
    "NetworkStream",
    "OwnTransport",
    "Transport",
    "UpgradingTransport",
    "WireRequest",
    "WireResponse",
    "Write",
    "hide_secrets",
    "is_client",
    "redact",
]
