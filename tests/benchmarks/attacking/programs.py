"""Programs under attack that are killed, stopped or signalled."""

from __future__ import annotations

import signal
import sys
import textwrap
from subprocess import DEVNULL, PIPE
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from .ground import Ground

_BEGINNING = """
import os, signal, sys, time
from contextlib import AsyncExitStack
import anyio
from aioftrackjobs import AsyncSession, job_context, shutdown_on_signals

for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, signal.default_int_handler)
"""


class Program:
    """A process of its own, on the event loop of the attack; it is killed at the end of the block.

    Args:
        ground: Where.
        text: Defines ``async def main()``; its arguments begin at ``sys.argv[2]``.
        arguments: For the program.
        url: The proxy before the server.
    """

    def __init__(self, ground: Ground, text: str, *arguments: str, url: str) -> None:
        end = "\nanyio.run(main, backend=sys.argv[1])\n"
        program = _BEGINNING + textwrap.dedent(text) + end
        self._command = [sys.executable, "-c", program, ground.backend, *arguments]
        self._environment = ground.server.environment(url)
        self._process: Process
        self._lines: BufferedByteReceiveStream

    async def __aenter__(self) -> Self:
        self._process = await anyio.open_process(
            self._command, env=self._environment, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
        )
        assert self._process.stdout is not None
        self._lines = BufferedByteReceiveStream(self._process.stdout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):
            if self._process.returncode is None:
                self._process.kill()
            await self._process.aclose()

    async def line(self) -> str:
        """Return the next line that it prints.

        Raises:
            TimeoutError: There is none within half a minute.
        """
        with anyio.fail_after(30):
            return (await self._lines.receive_until(b"\n", 1_000_000)).decode()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def ended(self) -> None:
        """Wait for its end."""
        await self._process.wait()
