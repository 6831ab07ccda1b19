"""Process: a command in a session of its own, all of whose processes can be ended.

Its descendants are found in two ways: they are in the process group of the command, or they have a
mark in their environment, which stays if they leave the group, as daemons do (Linux only).

If this process is killed, a watchdog ends them in its place. It is a small program of the shell
that waits for the end of a pipe, of which this process alone holds the other end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: The mark of all descendants of a command: the marks of the commands around it, then its own.
MARK = "AIOFTRACKJOBS_RUN"

#: Shells report an end by a signal as this number plus that of the signal.
BY_SIGNAL = 128

#: Seconds that processes which a command leaves behind may take to end by themselves.
_LINGER = 1.0

#: The same after they were ended by SIGTERM, when the command had ended by itself.
_LEFT_GRACE = 2.0

#: Seconds between two looks at the processes that are left: at first, and at most.
_PAUSE, _LONGEST_PAUSE = 0.02, 0.2

#: Reads the id of the process group, and then a line when the command has ended. If that line does
#: not come, the process that would write it is dead. Arguments: the mark, tenths of a second.
_WATCHDOG = """
trap '' HUP INT QUIT TERM
read -r group || exit 0
read -r _ && exit 0
marked() { grep -l -F -e "$1" /proc/[0-9]*/environ 2>/dev/null | tr -dc '0-9\\n'; }
hit() { kill -s "$1" -- "-$group" $(marked "$2") 2>/dev/null; }
hit TERM "$1"; hit CONT "$1"
while [ "$2" -gt 0 ] && hit 0 "$1"; do sleep 0.1; set -- "$1" $(($2 - 1)); done
hit KILL "$1"
"""


class Process:
    """A running command.

    Args:
        arguments: The program and its arguments.
        environment: The environment variables of the program; None for those of this process.
        folder: Its current directory; None for that of this process.
        stdin: Its standard input, as in subprocess; None for that of this process.
        stdout: File descriptor of its standard output.
        stderr: File descriptor of its standard error.
        grace: Seconds from SIGTERM to SIGKILL.

    Raises:
        OSError: It cannot be started.

    Attributes:
        pid: Its process id, which is that of its process group, too.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None,
        folder: str | None,
        stdin: int | None,
        stdout: int,
        stderr: int,
        grace: float,
    ) -> None:
        self._grace = grace
        mine = os.urandom(8).hex()
        around = (os.environ if environment is None else environment).get(MARK)
        self._mark = f"{around}.{mine}" if around else mine
        self._watchdog = _start_watchdog(f"{MARK}={self._mark}", grace)
        try:
            self._popen = subprocess.Popen(
                arguments,
                env={**(os.environ if environment is None else environment), MARK: self._mark},
                cwd=folder,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        except BaseException:
            self._release_watchdog()
            raise
        self.pid: int = self._popen.pid
        if self._watchdog is not None:
            _tell(self._watchdog, f"{self.pid}\n")
        self._ending = threading.Lock()
        self._is_forced = False
        self._has_ended = threading.Event()

    @property
    def has_ended(self) -> bool:
        """Whether the command itself has ended."""
        return self._has_ended.is_set()

    def wait(self) -> int:
        """Wait for the end of the command; return its exit code, or minus the number of a signal.

        To be called once, in a thread. What the command has left behind then is still there.
        """
        code = self._popen.wait()
        self._is_forced |= code < 0
        self._has_ended.set()
        return code

    def end_descendants(self) -> None:
        """End what the command has left behind, after its own end.

        After an end by itself, these are the processes of its group: a daemon that has left the
        group is meant to stay. After :meth:`stop`, and after a signal, they are all its
        descendants.
        """
        with self._ending:
            wait, grace = (0.0, self._grace) if self._is_forced else (_LINGER, _LEFT_GRACE)
            if not self._all_end_within(wait):
                self._signal_all(signal.SIGTERM)
                self._signal_all(signal.SIGCONT)
                if not self._all_end_within(grace):
                    self._signal_all(signal.SIGKILL)
                    self._all_end_within(_LINGER)
        self._release_watchdog()

    def send(self, number: int) -> None:
        """Send a signal to the process group, if the command still runs."""
        if not self.has_ended:
            _signal_group(self.pid, number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to all processes of the command, and SIGKILL when the grace is over.

        Returns at once. A second call does not extend the grace.
        """
        is_first, self._is_forced = not self._is_forced, True
        self._signal_all(number)
        self._signal_all(signal.SIGCONT)
        if is_first:
            threading.Thread(target=self._kill_late, name="kill", daemon=True).start()

    def kill(self) -> None:
        """Send SIGKILL to all processes of the command."""
        self._is_forced = True
        self._signal_all(signal.SIGKILL)

    def _kill_late(self) -> None:
        if not self._has_ended.wait(self._grace):
            self.kill()

    def _signal_all(self, number: int) -> bool:
        """Send a signal to all processes of the command; return whether there was one."""
        found = _signal_group(self.pid, number)
        if self._is_forced:
            for pid in _marked(self._mark):
                found |= _signal(os.kill, pid, number)
        return found

    def _all_end_within(self, seconds: float) -> bool:
        deadline, pause = time.monotonic() + seconds, _PAUSE
        while self._signal_all(0):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
        return True

    def _release_watchdog(self) -> None:
        if self._watchdog is not None:
            _tell(self._watchdog, "\nend\n")
            if self._watchdog.stdin is not None:
                self._watchdog.stdin.close()
            self._watchdog.wait()
            self._watchdog = None


def exit_code(code: int) -> int:
    """Return the exit code that a shell would report for *code* of :meth:`Process.wait`."""
    return BY_SIGNAL - code if code < 0 else code


def start_error_code(error: OSError) -> int:
    """Return the exit code that a shell reports for a command which cannot be started."""
    return 127 if isinstance(error, (FileNotFoundError, NotADirectoryError)) else 126


def _start_watchdog(mark: str, grace: float) -> subprocess.Popen[str] | None:
    """Start the program that ends the command if this process dies; None if there is no shell."""
    try:
        return subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "aioftrackjobs-watchdog", mark, str(round(grace * 10))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", os.defpath)},
            cwd="/",
            text=True,
            start_new_session=True,
        )
    except OSError:
        return None


def _tell(watchdog: subprocess.Popen[str], text: str) -> None:
    try:
        if watchdog.stdin is not None:
            watchdog.stdin.write(text)
            watchdog.stdin.flush()
    except OSError:  # it was killed
        pass


def _signal_group(group: int, number: int) -> bool:
    return _signal(os.killpg, group, number)


def _signal(send: Callable[[int, int], None], target: int, number: int) -> bool:
    try:
        send(target, number)
    except (ProcessLookupError, PermissionError):  # it has ended, or is of another user by now
        return False
    return True


def _marked(mark: str) -> list[int]:
    """Return the processes with *mark* in their environment; none where there is no /proc."""
    needle = f"{MARK}={mark}".encode()
    found = []
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if needle in file.read():
                        found.append(int(name))
            except OSError:  # it has ended, or belongs to another user
                continue
    return found
