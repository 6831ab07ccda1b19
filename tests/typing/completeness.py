"""The types that users import are complete: `pyright --verifytypes`, run by `nox -s typing`.

Each name without an underscore needs a declared type, so that all type checkers see the same one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

#: What cannot be known of a class that is derived from one of Celery, which has no types.
EXEMPT = {
    f"aioftrackjobs.integrations.celery.FtrackTask: Type of {what} unknown"
    for what in ("metaclass", "base class")
}


def main() -> str | None:
    """Return what is incomplete, one line each, or None."""
    done = subprocess.run(
        ["pyright", "--verifytypes", "aioftrackjobs", "--ignoreexternal", "--outputjson"],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        report = json.loads(done.stdout)["typeCompleteness"]
        symbols: list[dict[str, Any]] = report["symbols"]
    except (ValueError, KeyError):
        return f"pyright has made no report: {done.stdout}{done.stderr}"
    if report["packageName"] != "aioftrackjobs" or len(symbols) < 1000:
        return f"pyright has read {len(symbols)} names only; is the package installed?"
    incomplete = {
        f"{symbol['name']}: {diagnostic['message']}"
        for symbol in symbols
        if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]
        for diagnostic in symbol["diagnostics"]
    }
    return "\n".join(sorted(incomplete - EXEMPT)) or None


if __name__ == "__main__":
    sys.exit(main())
