"""How requests reach the server: one small seam, and its adapter for httpx and its like."""

from aioftrackjobs.transport._base import Download, Transport, WireRequest, WireResponse
from aioftrackjobs.transport._client import HttpClient
from aioftrackjobs.transport._httpx import HttpxTransport, open_client
from aioftrackjobs.transport._redaction import hide_secrets, redact
from aioftrackjobs.transport._short import ShortCut

__all__ = [
    "Download",
    "HttpClient",
    "HttpxTransport",
    "ShortCut",
    "Transport",
    "WireRequest",
    "WireResponse",
    "hide_secrets",
    "open_client",
    "redact",
]
