"""The command ``aioftrackjobs``; its dependencies come with the extra ``cli``."""

from __future__ import annotations

import sys
from importlib import import_module

from aioftrackjobs.errors import FtrackJobsError, MissingExtraError

__all__ = ["main"]

#: Exit codes, as shells know them: a failure, wrong use of a command, and Ctrl-C.
_FAILED, _MISUSED, _INTERRUPTED = 1, 2, 130


def main() -> None:
    """Run the command line and exit. An error of this package is printed as one line."""
    try:
        _require("cli", "typer", "rich")
        from aioftrackjobs.cli.commands import app

        app(prog_name="aioftrackjobs")
    except MissingExtraError as error:
        _exit(error, _MISUSED)
    except FtrackJobsError as error:
        _exit(error, _FAILED)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _require(extra: str, *packages: str) -> None:
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingExtraError(extra, package) from error


def _exit(error: FtrackJobsError, code: int) -> None:
    line = " ".join(str(error).split())
    print(f"aioftrackjobs: {line}", file=sys.stderr)
    sys.exit(code)
