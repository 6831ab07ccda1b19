"""Gives a process of these tests the host name of its worker, and a place that no other can see."""

from __future__ import annotations

import os
import socket

from aioftrackjobs.journal import _process

_host = os.environ.get("WORKER_HOST", "")
if _host:
    socket.gethostname = lambda: _host
    _process._read_place = lambda: f"place of {_host}"
