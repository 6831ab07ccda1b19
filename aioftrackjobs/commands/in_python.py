"""Commands that a Python program runs: their arguments, and one as a part of a running Job."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from re import Pattern
from typing import Any

from anyio.to_thread import run_sync

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.commands.execution import CommandResult, CommandSettings, Execution
from aioftrackjobs.commands.reporting import (
    LOG_WHEN,
    CommandExecution,
    CommandJob,
    LogWhen,
    attach_log,
    run_in_block,
)
from aioftrackjobs.config.settings import require, require_count, require_flag, require_seconds
from aioftrackjobs.errors import ArgumentError, FtrackJobsError

logger: SafeLogger = SafeLogger(__name__)


def execution_of(
    arguments: Sequence[str | os.PathLike[str]],
    *,
    job_id: str,
    progress: str | Pattern[str] | None,
    frames: str | None,
    duration: float | None,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    timeout: float | None,
    grace: float,
    retries: int,
    quiet: bool,
    log: LogWhen,
    attach: Sequence[str] = (),
) -> Execution:
    """Return a command that is not started yet.

    Raises:
        ArgumentError: An argument has a wrong type or value.
    """
    _check_arguments(arguments, env or {})
    if timeout is not None:
        require_seconds("timeout", timeout, above=True)
    require_seconds("grace", grace)
    if retries != 0:
        require_count("retries", retries)
    require_flag("quiet", quiet)
    require(log in LOG_WHEN, "log", " or ".join(map(repr, LOG_WHEN)), log)
    are_patterns = not isinstance(attach, str) and all(isinstance(each, str) for each in attach)
    require(are_patterns, "attach", "a list of patterns", attach)
    if duration is not None:
        require_seconds("duration", duration, above=True)
    try:
        settings = CommandSettings(
            [os.fspath(each) for each in arguments],
            job_id=job_id,
            environment=env,
            folder=None if cwd is None else os.fspath(cwd),
            preset=progress if isinstance(progress, str) else None,
            pattern=None if isinstance(progress, str) else progress,
            frames=frames,
            duration=duration,
            timeout=timeout,
            grace=grace,
            retries=retries,
            is_quiet=quiet,
        )
    except ValueError as error:
        name = "frames" if progress is None else "progress"
        raise ArgumentError(name, "what is known", str(error)) from None
    return Execution(settings, lambda text: logger.warning("%(warning)s", warning=text))


def _check_arguments(arguments: Any, env: Any) -> None:
    is_list = isinstance(arguments, Sequence) and not isinstance(arguments, str | bytes)
    require(is_list and bool(arguments), "arguments", "a program and its arguments", arguments)
    for each in arguments:
        require(isinstance(each, str | os.PathLike), "arguments", "texts or paths", each)
        text = os.fspath(each)
        is_usable = isinstance(text, str) and "\0" not in text
        require(is_usable, "arguments", "texts or paths, without the character NUL", each)
    require(isinstance(env, Mapping), "env", "a mapping of texts", env)
    for name, value in env.items():
        are_texts = isinstance(name, str) and isinstance(value, str)
        is_usable = are_texts and "=" not in name and "\0" not in name + value
        require(is_usable, "env", "a mapping of texts", env)


def start(execution: CommandExecution) -> None:
    """Start a command; if that fails, its result says so."""
    with suppress(OSError):
        execution.start()


async def run_in_job(
    job: CommandJob, execution: Execution, log: LogWhen, redact: Callable[[str], str]
) -> CommandResult:
    """Run a command as a part of *job*.

    Args:
        job: The Job.
        execution: The command.
        log: When the end of its output is attached.
        redact: Removes the API key from a text.

    Raises:
        FtrackJobsError: The command has succeeded, and its log could not be attached.
    """
    await run_sync(start, execution)
    result = await run_in_block(job, execution)
    try:
        await attach_log(job, execution, log, redact)
    except FtrackJobsError as error:
        if result.reason is None:
            raise
        logger.warning(
            "%(command)s: its log was not attached: %(error)s",
            command=execution.settings.name,
            error=error,
        )
    return result
