"""How requests reach the server: one small seam, and its adapter for httpx and its like."""

from aioftrackjobs.transport._base import Download, Transport, WireRequest, WireResponse
from aioftrackjobs.transport._client import HttpClient, OwnClient
from aioftrackjobs.transport._httpx import HttpxTransport
from aioftrackjobs.transport._redaction import hide_secrets, redact

__all__ = [
    "Download",
    "HttpClient",
    "HttpxTransport",
    "OwnClient",
    "Transport",
    "WireRequest",
    "WireResponse",
    "hide_secrets",
    "redact",
]
