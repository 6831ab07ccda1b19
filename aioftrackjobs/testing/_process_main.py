"""The program that runs in the process of a :class:`~aioftrackjobs.testing.ServerProcess`.

It communicates with its parent process by lines of JSON: requests on standard input, responses on
standard output.
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


def main(settings: Mapping[str, Any]) -> None:
    """Run the server until a signal or the end of the parent process.

    Args:
        settings: The ``seed`` and the list of ``faults``, and the ``options`` of
            :func:`aioftrackjobs.devserver.serve`.
    """
    faults = Faults(settings["seed"], own_process=True)
    try:
        plan_faults(faults, settings["faults"])
        serve(**settings["options"], faults=faults, on_ready=_start)
    except ServerStartError as error:
        _respond(error=str(error))


def _start(server: ServerHandle) -> None:
    _respond(url=server.url, api_key=server.api_key)
    threading.Thread(target=_respond_to_all, args=(server.inspector,), daemon=True).start()


def _respond_to_all(inspector: Inspector) -> None:
    # Not sys.stdin: a thread that waits in its buffer holds a lock that the interpreter needs to
    # exit.
    with open(0, "rb", buffering=0, closefd=False) as requests:
        for line in requests:
            _respond(**_look_up(inspector, **json.loads(line)))
    os.kill(os.getpid(), signal.SIGTERM)  # the parent process has ended


def _look_up(inspector: Inspector, *, query: str | None = None, path: str = "") -> dict[str, str]:
    """Return the result of a query, or the path of the file of the component with the id *path*."""
    try:
        if query is None:
            return {"path": str(inspector.path(path).absolute())}
        result = inspector.query(query)
        return {"result": result if isinstance(result, str) else result.decode()}
    except FtrackJobsError as error:
        return {"error": str(error)}


def _respond(**facts: str) -> None:
    print(json.dumps(facts), flush=True)  # noqa: T201 - to the parent process
