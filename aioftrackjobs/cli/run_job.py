"""The part of ``aioftrackjobs run`` that is imported while the command already runs."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

import anyio

from aioftrackjobs.commands.reporting import CommandExecution, ReportedJob, ReportOptions
from aioftrackjobs.errors import ConfigurationError, FtrackJobsError, JobStoppedError
from aioftrackjobs.running.command_jobs import report_execution
from aioftrackjobs.session import AsyncSession

if TYPE_CHECKING:
    import argparse

#: Seconds for ftrack after the end of the command.
_GRACE = 10.0


def report(execution: CommandExecution, options: argparse.Namespace, *, must_wait: bool) -> None:
    """Report a command as a Job until it has ended, or until that goes wrong.

    Errors that are expected are printed.

    Args:
        execution: The command.
        options: Those of the user.
        must_wait: Whether the command starts only when its Job is running.
    """
    _show_warnings(execution.warn)
    try:
        anyio.run(_report, execution, options, must_wait)
    except JobStoppedError as error:
        execution.warn(str(error))
    except FtrackJobsError as error:
        has_not_begun = must_wait and execution.result is None
        execution.warn(f"the command is not started: {error}" if has_not_begun else str(error))


async def _report(
    execution: CommandExecution, options: argparse.Namespace, must_wait: bool
) -> None:
    description = options.description
    if description is None and options.job is None and not options.is_joined:
        description = execution.settings.name
    job = ReportedJob(
        options.job_id,
        options.user,
        description,
        exists=options.is_joined or options.job is not None,
        is_joined=options.is_joined,
    )
    reported = ReportOptions(tuple(options.attach), options.log, _GRACE, must_wait)
    session = await _open_session(options.journal, execution.warn)
    try:
        await report_execution(session, execution, job, reported)
    finally:
        await session.__aexit__(*sys.exc_info())


async def _open_session(journal: str | None, warn: Callable[[str], object]) -> AsyncSession:
    """Open a session, without a journal if that cannot be used: the Job is to be seen all the same.

    Raises:
        ConfigurationError: Another setting is wrong.
    """
    session = AsyncSession(journal=journal)
    try:
        return await session.__aenter__()
    except ConfigurationError as error:
        warn(str(error))
        return await AsyncSession(journal="").__aenter__()


def _show_warnings(warn: Callable[[str], object]) -> None:
    """Let warnings and the log be lines like those of this command."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        warn(str(message))

    warnings.showwarning = show
    logging.basicConfig(
        format="aioftrackjobs: %(message)s", level=os.environ.get("LOGLEVEL", "WARNING")
    )
