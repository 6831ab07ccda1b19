"""What runs in the process of a :class:`~aioftrackjobs.testing.ServerProcess`.

It talks with its parent in lines of JSON: what to do, or what is asked, on standard input; what
came of it on standard output.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

from aioftrackjobs.devserver import (
    Faults,
    Inspector,
    ServerHandle,
    ServerStartError,
    plan_faults,
    serve,
)
from aioftrackjobs.errors import FtrackJobsError


def main(told: Mapping[str, Any]) -> None:
    """Serve until a signal, or the end of the parent; say what came of the start."""
    faults = Faults(told["seed"], own_process=True)
    try:
        plan_faults(faults, told["faults"])
        serve(**told["options"], faults=faults, on_ready=_begin)
    except ServerStartError as error:
        _say(error=str(error))


def _begin(server: ServerHandle) -> None:
    _say(url=server.url, api_key=server.api_key)
    threading.Thread(target=_answer_all, args=(server.inspector,), daemon=True).start()


def _answer_all(inspector: Inspector) -> None:
    # Not sys.stdin: who waits in its buffer holds a lock that the end of the interpreter needs.
    with open(0, "rb", buffering=0, closefd=False) as questions:
        for line in questions:
            _say(**_answer(inspector, **json.loads(line)))
    os.kill(os.getpid(), signal.SIGTERM)  # nobody is left who would


def _answer(inspector: Inspector, *, look: str | None = None, path: str = "") -> dict[str, str]:
    """Look for what a query finds, or for the path of a component's file."""
    try:
        if look is None:
            return {"path": str(inspector.path(path).absolute())}
        found = inspector.query(look)
        return {"found": found if isinstance(found, str) else found.decode()}
    except FtrackJobsError as error:
        return {"error": str(error)}


def _say(**said: str) -> None:
    print(json.dumps(said), flush=True)  # noqa: T201 - to the parent
