"""Loads what decides about the HTTP library of sessions, as it is where httpx2 is not installed.

Most users do not have it. The tests that need sessions with httpx2 ask for them.
"""

from __future__ import annotations

import importlib
import sys

_loaded = sys.modules.get("httpx2")
sys.modules["httpx2"] = None  # type: ignore[assignment]
importlib.import_module("aioftrackjobs.transport._library")
del sys.modules["httpx2"]
if _loaded is not None:
    sys.modules["httpx2"] = _loaded
