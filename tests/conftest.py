"""Async tests run on anyio's pytest plugin: on asyncio, unless a folder says otherwise."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--clients",
        choices=("core", "all"),
        default="core",
        help="which integration tests run on every HTTP client and event loop: those marked "
        "every_client (the default), or all",
    )


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
