"""The command line as a whole."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from aioftrackjobs import __version__

_WITHOUT = """
import sys
sys.modules[{package!r}] = None  # as if it were not installed
from aioftrackjobs.cli import main
sys.argv[1:] = {arguments!r}
main()
"""
_MODULE_WITHOUT = """
import runpy, sys
sys.modules["typer"] = None
runpy.run_module("aioftrackjobs", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("module", ["aioftrackjobs", "aioftrackjobs.cli"])
async def test_version_is_printed(launch: Callable[..., Any], module: str) -> None:
    program = launch("-m", module, "--version")

    assert await program.end() == 0
    assert program.out == f"aioftrackjobs {__version__}\n"


def test_help_names_the_commands(command: Callable[..., Any]) -> None:
    ended = command("--help")

    assert ended.code == 0
    for name in ("demo", "serve", "dump", "schemas"):
        assert name in ended.out


def test_unknown_command_is_misuse(command: Callable[..., Any]) -> None:
    ended = command("dmeo")

    assert ended.code == 2
    assert "dmeo" in ended.err


def _complaint(package: str, extra: str) -> str:
    return (
        f"aioftrackjobs: {package} is not installed; it comes with an extra: "
        f'pip install "aioftrackjobs[{extra}]"\n'
    )


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_missing_command_line_is_named_in_one_line(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed

    ended = command("demo")

    assert (ended.code, ended.out, ended.err) == (2, "", _complaint(package, "cli"))


@pytest.mark.parametrize(("command", "package"), [("demo", "uvicorn"), ("serve", "lark")])
async def test_missing_server_is_named_in_one_line(
    launch: Callable[..., Any], command: str, package: str
) -> None:
    """Each package of the server is in ``devserver/test_start_errors.py``."""
    program = launch("-c", _WITHOUT.format(package=package, arguments=[command]))

    assert await program.end() == 2
    assert (program.out, program.err) == ("", _complaint(package, "server"))


async def test_missing_extra_is_named_for_the_module_too(launch: Callable[..., Any]) -> None:
    program = launch("-c", _MODULE_WITHOUT)

    assert await program.end() == 2
    assert program.err.startswith("aioftrackjobs: typer is not installed; it comes with an extra")
    assert program.err.count("\n") == 1
