"""The command line as a whole."""

from __future__ import annotations

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
async def test_version_is_told(launch: Callable[..., Any], module: str) -> None:
    program = launch("-m", module, "--version")

    assert await program.end() == 0
    assert program.out == f"aioftrackjobs {__version__}\n"


async def test_help_names_the_commands(launch: Callable[..., Any]) -> None:
    program = launch("-m", "aioftrackjobs.cli", "--help")

    assert await program.end() == 0
    for command in ("demo", "serve", "dump", "schemas"):
        assert command in program.out


async def test_unknown_command_is_misuse(launch: Callable[..., Any]) -> None:
    program = launch("-m", "aioftrackjobs.cli", "dmeo")

    assert await program.end() == 2
    assert "dmeo" in program.err


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        ("demo", "typer", "cli"),
        ("demo", "rich", "cli"),
        ("demo", "uvicorn", "server"),
        ("serve", "lark", "server"),
        ("serve", "sqlalchemy", "server"),
        ("serve", "starlette", "server"),
    ],
)
async def test_missing_extra_is_named_in_one_line(
    launch: Callable[..., Any], command: str, package: str, extra: str
) -> None:
    program = launch("-c", _WITHOUT.format(package=package, arguments=[command]))

    assert await program.end() == 2
    assert program.out == ""
    assert program.err == (
        f"aioftrackjobs: {package} is not installed; it comes with an extra: "
        f'pip install "aioftrackjobs[{extra}]"\n'
    )


async def test_missing_extra_is_named_for_the_module_too(launch: Callable[..., Any]) -> None:
    program = launch("-c", _MODULE_WITHOUT)

    assert await program.end() == 2
    assert program.err.startswith("aioftrackjobs: typer is not installed; it comes with an extra")
    assert program.err.count("\n") == 1
