"""The program that runs in the process of a :class:`~aioftrackjobs.testing.ServerProcess`.

It communicates with its parent process by lines of JSON: requests on standard input, responses on
standard output.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

from aioftrackjobs.devserver import (
    Faults,
    ServerHandle,
    ServerStartError,
    plan_faults,
    serve,
)
from aioftrackjobs.devserver.events.actions import Actions
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
    threading.Thread(target=_respond_to_all, args=(server,), daemon=True).start()


def _respond_to_all(server: ServerHandle) -> None:
    # Not sys.stdin: a thread that waits in its buffer holds a lock that the interpreter needs to
    # exit.
    calls = _Calls(server.actions)
    with open(0, "rb", buffering=0, closefd=False) as requests:
        for line in requests:
            ((name, value),) = json.loads(line).items()
            _respond(**_look_up(server, calls, name, value))
    os.kill(os.getpid(), signal.SIGTERM)  # the parent process has ended


#: The errors of actions.
_ERRORS = frozenset({"LookupError", "TimeoutError", "TypeError", "ValueError"})


class _Calls:
    """Calls of the actions, each in a thread of its own."""

    def __init__(self, actions: Actions) -> None:
        self._actions = actions
        self._numbers = itertools.count()
        self._outcomes: dict[str, dict[str, Any]] = {}

    def begin(self, request: Mapping[str, Any]) -> str:
        """Begin a call, and return its number."""
        number = str(next(self._numbers))
        threading.Thread(target=self._run, args=(number, request), daemon=True).start()
        return number

    def _run(self, number: str, request: Mapping[str, Any]) -> None:
        try:
            method = getattr(self._actions, request["method"])
            outcome = {"value": method(*request["arguments"], **request["named"])}
        except Exception as error:  # noqa: BLE001 - the parent process raises it
            name = type(error).__name__
            outcome = {"error": name if name in _ERRORS else "RuntimeError", "text": str(error)}
        self._outcomes[number] = outcome

    def outcome(self, number: str) -> dict[str, Any] | None:
        """Return the value or the error of a call; None while it runs."""
        return self._outcomes.pop(number, None)


def _look_up(server: ServerHandle, calls: _Calls, name: str, value: Any) -> dict[str, str]:
    """Return the response to a request of the parent process."""
    try:
        match name:
            case "path":
                return {"path": str(server.inspector.path(value).absolute())}
            case "call":
                return {"result": calls.begin(value)}
            case "outcome":
                return {"result": json.dumps(calls.outcome(value))}
            case "messages":
                return {"result": json.dumps(server.actions.messages)}
            case _:
                result = server.inspector.query(value)
                return {"result": result if isinstance(result, str) else result.decode()}
    except FtrackJobsError as error:
        return {"error": str(error)}


def _respond(**facts: str) -> None:
    print(json.dumps(facts), flush=True)  # noqa: T201 - to the parent process
