"""The types that users import are complete: `pyright --verifytypes`, run by `nox -s typing`.

Each name without an underscore needs a declared type, so that all type checkers see the same one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

#: Celery has no types.
EXEMPT = ("aioftrackjobs.integrations.celery.FtrackTask",)


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
    incomplete = [
        f"{symbol['name']}: {diagnostic['message']}"
        for symbol in symbols
        if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]
        if not symbol["name"].startswith(EXEMPT)
        for diagnostic in symbol["diagnostics"]
    ]
    return "\n".join(incomplete) or None


if __name__ == "__main__":
    sys.exit(main())
