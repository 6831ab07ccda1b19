"""What runs in the process of a :class:`~aioftrackjobs.testing.ServerProcess`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aioftrackjobs.devserver import Faults, ServerHandle, ServerStartError, plan_faults, serve


def main(told: Mapping[str, Any]) -> None:
    """Serve until a signal, and say on one line of standard output what came of the start."""
    faults = Faults(told["seed"], own_process=True)
    try:
        plan_faults(faults, told["faults"])
        serve(**told["options"], faults=faults, on_ready=_tell)
    except ServerStartError as error:
        print(json.dumps({"error": str(error)}), flush=True)  # noqa: T201 - to the parent


def _tell(server: ServerHandle) -> None:
    told = {"url": server.url, "api_key": server.api_key}
    print(json.dumps(told), flush=True)  # noqa: T201 - to the parent
