"""``aioftrackjobs run``: starts a command at once, and then imports what reports it as a Job."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager, suppress

from aioftrackjobs.commands.execution import JOB_ID, CommandSettings, Execution
from aioftrackjobs.commands.remote import RemoteExecution, ReportingProcess

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from types import FrameType

_USAGE = "aioftrackjobs run [OPTIONS] -- COMMAND [ARGUMENTS]"

_DESCRIPTION = """\
Run a command as a Job: with progress, the end of its log if it fails, and a true end.

The exit code is that of the command: 127 if it is not found, 126 if it cannot be executed, and 128
plus the number of a signal that ended it. It is 1 if ftrack refuses a Job that the command has to
wait for, and 2 after a mistake in the options."""

_EPILOG = """\
The command gets the id of the Job as FTRACK_JOB_ID; a further "aioftrackjobs run" inside of it
works on the same Job. Lines of OpenJD in its output always count: openjd_progress: 42,
openjd_status: TEXT and openjd_fail: TEXT."""

#: Signals that stop the command, and those that are only passed on.
_STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
_PASSED_ON = ("SIGUSR1", "SIGUSR2")

#: Exit codes if ftrack refuses a Job that the command has to wait for, and after a mistake in the
#: options.
_REFUSED, _MISUSED = 1, 2


def main(arguments: Sequence[str]) -> None:
    """Run the command with *arguments*, those after ``run``, and exit."""
    _open_standard_streams()
    parser = make_parser()
    given, command = split(parser, arguments)
    options = parser.parse_args(given)
    if not command:
        parser.error(f"there is no command: {_USAGE}")
    use_server(options.server, options.api_user, options.api_key, options.key_file)
    execution = _execution_of(parser, options, command)
    _require_settings()
    reporting = ReportingProcess(execution, lambda remote: _report(options, remote))
    with _reacting_to_signals(execution):
        if not waits_for_job(options):
            try:
                execution.start()
            except OSError as error:
                warn(str((execution.result and execution.result.reason) or error))
    _attend(reporting, execution, options)
    sys.exit(_REFUSED if execution.result is None else execution.result.exit_code)


def _open_standard_streams() -> None:
    """Open those that the caller has closed, so that no pipe gets the number of one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number


def _attend(reporting: ReportingProcess, execution: Execution, options: argparse.Namespace) -> None:
    """Wait until the command has ended, and is reported."""
    reporting.start()
    if waits_for_job(options):
        reporting.wait()
        if not execution.has_started:
            return
    execution.wait()
    if not reporting.wait():
        warn("the process that reports the Job was killed; recover fails the Job")


def _report(options: argparse.Namespace, execution: RemoteExecution) -> None:
    """Report the command as a Job until it has ended."""
    try:
        from aioftrackjobs.cli.run_job import report

        report(execution, options, must_wait=waits_for_job(options))
    except Exception as error:  # noqa: BLE001 - a damaged installation, for example; the command goes on
        warn(f"the Job of the command cannot be reported: {type(error).__name__}: {error}")


def make_parser() -> argparse.ArgumentParser:
    """Return what reads the options."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="aioftrackjobs run",
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("the Job").add_argument
    add("--description", "-d", metavar="TEXT", help="text in the jobs menu")
    add("--user", "-u", metavar="NAME", help="whose Job it is (default: the API user)")
    add("--job", metavar="ID", help="a queued Job to run, in place of a new one")
    add("--attach", "-a", metavar="PATTERN", action="append", default=[], help=_ATTACH)
    add("--log", choices=("always", "failure", "never"), default="failure", help=_LOG)
    add("--journal", metavar="FILE", help="keeps the Job if ftrack cannot be reached")
    add("--require-ftrack", action="store_true", help="do not start before the Job is running")
    add = parser.add_argument_group("progress").add_argument
    add("--preset", "-p", metavar="NAME", help="the program: arnold, cycles, ffmpeg, nuke, ...")
    add("--progress", metavar="REGEX", help="one group: a percentage; two: done and total")
    add("--frames", "-f", metavar="RANGE", help="the frames: 1001-1100, 1-9x2, 5,8")
    add("--duration", metavar="SECONDS", type=_seconds, help="length of the film, for ffmpeg")
    add = parser.add_argument_group("the command").add_argument
    add("--timeout", "-t", metavar="TIME", type=_time, help="stop it after 90s, 30m, 2h, 1d")
    add("--grace", metavar="TIME", type=_time, default=30.0, help=_GRACE)
    add("--retries", "-r", metavar="N", type=_count, default=0, help="start it again if it fails")
    add("--quiet", "-q", action="store_true", help="do not pass its output on")
    add = parser.add_argument_group("ftrack").add_argument
    add("--server", metavar="URL", help="default: FTRACK_SERVER")
    add("--api-user", metavar="NAME", help="default: FTRACK_API_USER")
    add("--api-key", metavar="KEY", help="default: FTRACK_API_KEY")
    add("--key-file", metavar="FILE", help="a file that has the API key")
    return parser


_ATTACH = "files to attach if it succeeds; can be repeated"
_LOG = "when to attach the end of the output (default: failure)"
_GRACE = "from SIGTERM to SIGKILL (default: 30s)"


def split(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options, and the command after them, with or without ``--`` in between."""
    values = {
        name for action in parser._actions if action.nargs is None for name in action.option_strings
    }
    at = 0
    while at < len(arguments):
        each = arguments[at]
        if each == "--":
            return list(arguments[:at]), list(arguments[at + 1 :])
        if not each.startswith("-") or each == "-":
            break
        at += 2 if each in values else 1
    return list(arguments[:at]), list(arguments[at:])


def _execution_of(
    parser: argparse.ArgumentParser, options: argparse.Namespace, command: list[str]
) -> Execution:
    outer = os.environ.get(JOB_ID)
    options.is_joined = bool(outer) and options.job in (None, outer)
    options.job_id = (outer if options.is_joined else options.job) or _new_id()
    try:
        settings = CommandSettings(
            command,
            job_id=options.job_id,
            preset=options.preset,
            pattern=options.progress,
            frames=options.frames,
            duration=options.duration,
            timeout=options.timeout,
            grace=options.grace,
            retries=options.retries,
            is_quiet=options.quiet,
            has_input=True,
        )
        return Execution(settings, warn)
    except (ValueError, NotImplementedError) as error:
        parser.error(str(error))


def waits_for_job(options: argparse.Namespace) -> bool:
    """Return whether the command starts only when its Job is running."""
    return options.require_ftrack or (options.job is not None and not options.is_joined)


def use_server(server: str | None, user: str | None, key: str | None, key_file: str | None) -> None:
    """Put the options that name a server into the environment, for this process and its command."""
    given = {"FTRACK_SERVER": server, "FTRACK_API_USER": user, "FTRACK_API_KEY": key}
    os.environ.update({name: value for name, value in given.items() if value})
    if key_file is not None:
        try:
            with open(key_file, encoding="utf-8") as file:  # noqa: PTH123
                os.environ["FTRACK_API_KEY"] = file.read().strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            _exit(f"cannot use --key-file {key_file}: {reason}")


def with_options(text: str) -> str:
    """Return what is wrong with the settings, with the options in place of Python's arguments."""
    options = {"server_url": "--server", "api_user": "--api-user", "api_key": "--key-file"}
    for argument, option in options.items():
        text = text.replace(f"argument {argument}", option)
    return text


def _require_settings() -> None:
    names = ("FTRACK_SERVER", "FTRACK_API_USER", "FTRACK_API_KEY")
    if not all(map(os.environ.get, names)):
        from aioftrackjobs.config.settings import resolve_credentials
        from aioftrackjobs.errors import ConfigurationError

        try:
            resolve_credentials()
        except ConfigurationError as error:
            _exit(with_options(str(error)))


@contextmanager
def _reacting_to_signals(execution: Execution) -> Iterator[None]:
    """Handle signals from now on, but not inside of the block: what arrives there waits."""
    early: list[int] | None = []

    def stop(number: int, frame: FrameType | None) -> None:
        if execution.result is not None:  # ftrack is being waited for
            os._exit(execution.result.exit_code or 128 + number)
        execution.stop(f"stopped by {signal.Signals(number).name}", number)

    def pass_on(number: int, frame: FrameType | None) -> None:
        execution.send(number)

    def pause(number: int, frame: FrameType | None) -> None:
        # SIGTSTP would have no effect: the session of the command has no terminal.
        execution.send(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        execution.send(signal.SIGCONT)

    def resize(number: int, frame: FrameType | None) -> None:
        execution.copy_size()

    handlers = {
        **dict.fromkeys(_STOPPING, stop),
        **dict.fromkeys(_PASSED_ON, pass_on),
        "SIGTSTP": pause,
        "SIGWINCH": resize,
    }
    by_number = {getattr(signal, name): handler for name, handler in handlers.items()}

    def handle(number: int, frame: FrameType | None) -> None:
        if early is None:
            by_number[number](number, frame)
        else:
            early.append(number)

    for number in by_number:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)
    yield
    arrived, early = early or [], None
    for number in arrived:
        handle(number, None)


def _new_id() -> str:
    """Return a random id as a UUID, without the module for these, whose import takes long."""
    bits = bytearray(os.urandom(16))
    bits[6], bits[8] = bits[6] & 0x0F | 0x40, bits[8] & 0x3F | 0x80
    text = bits.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _time(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = (text[:-1], text[-1:]) if text[-1:].lower() in units else (text, "s")
    return _seconds(number) * units[unit.lower()]


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError(text)
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise ValueError(text)
    return count


def warn(text: str) -> None:
    """Write a message to the standard error."""
    with suppress(OSError):  # nothing reads it any more
        print(f"aioftrackjobs: {' '.join(text.split())}", file=sys.stderr, flush=True)


def _exit(text: str) -> None:
    warn(text)
    sys.exit(_MISUSED)
