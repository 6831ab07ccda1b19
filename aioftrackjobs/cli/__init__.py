"""The command ``aioftrackjobs``; its dependencies come with the extra ``cli``.

``aioftrackjobs run`` needs none of them, and starts its command before it imports anything that
takes long: see :mod:`aioftrackjobs.cli.run`.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

#: Exit codes, as shells know them: a failure, wrong use of a command, and Ctrl-C.
_FAILED, _MISUSED, _INTERRUPTED = 1, 2, 130

#: Options before the name of a command, and what the command calls them.
_GLOBAL = {
    "--server": "--server",
    "--user": "--api-user",
    "--api-user": "--api-user",
    "--api-key": "--api-key",
    "--key-file": "--key-file",
}


def main() -> None:
    """Run the command line and exit. An error of this package is printed as one line."""
    before, command, after = _split(sys.argv[1:])
    if command == "run":
        from aioftrackjobs.cli.run import main as run

        run([*before, *after])
        return
    from aioftrackjobs.errors import (
        ConfigurationError,
        FtrackJobsError,
        MissingExtraError,
        ServerError,
    )

    try:
        _require("cli", "typer", "rich")
        from aioftrackjobs.cli.commands import app

        app(prog_name="aioftrackjobs")
    except ConfigurationError as error:
        from aioftrackjobs.cli.run import with_options

        _exit(with_options(str(error)), _MISUSED)
    except MissingExtraError as error:
        _exit(str(error), _MISUSED)
    except FtrackJobsError as error:
        if isinstance(error, ServerError):
            error.expression = None  # a query of the command, which its user has not written
        _exit(str(error), getattr(error, "exit_code", _FAILED))
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _split(arguments: "Sequence[str]") -> "tuple[list[str], str, list[str]]":
    """Return the options before the name of the command, as it calls them, the name, and the rest.

    The name is empty if there is none, or something else stands before it.
    """
    before: list[str] = []
    at = 0
    while at < len(arguments):
        name, mark, value = arguments[at].partition("=")
        if name not in _GLOBAL:
            return before, "" if name.startswith("-") else arguments[at], list(arguments[at + 1 :])
        if not mark:
            at += 1
            value = arguments[at] if at < len(arguments) else ""
        before.append(f"{_GLOBAL[name]}={value}")
        at += 1
    return before, "", []


def _require(extra: str, *packages: str) -> None:
    from importlib import import_module

    from aioftrackjobs.errors import MissingExtraError

    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingExtraError(extra, package) from error


def _exit(text: str, code: int) -> None:
    line = " ".join(text.split())
    print(f"aioftrackjobs: {line}", file=sys.stderr)
    sys.exit(code)
