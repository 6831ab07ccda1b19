"""The output of a command: passed on unchanged and at once, kept in part, and read line by line.

One thread for each stream reads and passes on. Most of what programs write says nothing about
progress, and is not split into lines at all, so that the output takes hardly more time than any
program needs that reads it and writes it again. Memory does not grow with it.
"""

from __future__ import annotations

import os
import select
import threading

from aioftrackjobs.commands.progress import ProgressReader, Reading, without_codes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes of a line that are read, and of the output that is kept.
LONGEST_LINE = 64 * 1024
LONGEST_LOG = 256 * 1024

#: Bytes that a pipe holds, where the system allows it, and of one read: fewer changes from one
#: process to another, and only the last quarter of a full pipe is kept at all.
_PIPE_SIZE = 1024 * 1024
_F_SETPIPE_SZ = 1031


class OutputLog:
    """Keeps the end of the output of a command, both streams in one, in the order of their lines.

    It may be used in several threads.
    """

    def __init__(self) -> None:
        self._ring = bytearray(LONGEST_LOG)
        self._end = 0  # where the next byte goes
        self._is_full = False
        self._lock = threading.Lock()

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Add some whole lines."""
        view = memoryview(data)[-LONGEST_LOG:]
        with self._lock:
            fits = min(len(view), LONGEST_LOG - self._end)
            self._ring[self._end : self._end + fits] = view[:fits]
            self._ring[: len(view) - fits] = view[fits:]
            self._is_full |= self._end + len(view) >= LONGEST_LOG
            self._end = (self._end + len(view)) % LONGEST_LOG

    def text(self) -> str:
        """Return what is kept. It begins with a whole line, unless a single one is longer."""
        with self._lock:
            kept = bytes(self._ring[: self._end])
            if self._is_full:
                kept = bytes(self._ring[self._end :]) + kept
        if self._is_full and (begin := _first_line_end(kept)) > 0:
            kept = kept[begin:]
        return kept.decode("utf-8", "replace")

    def last_line(self) -> str | None:
        """Return the last line that says something; None if there is none."""
        text = without_codes(self.text()[-LONGEST_LINE:])
        for line in reversed(text.replace("\r", "\n").split("\n")):
            if any(each.isalnum() for each in line):
                return " ".join(line.split())
        return None


class LineReader:
    """Reads the lines of one stream.

    Args:
        reader: Knows what lines mean; shared by the streams of a command.
        lock: Protects it.
        logs: Where lines are kept.
        report: Called with what a line says about progress.
    """

    def __init__(
        self,
        reader: ProgressReader,
        lock: threading.Lock,
        logs: tuple[OutputLog, ...],
        report: Callable[[Reading], object],
    ) -> None:
        self._reader = reader
        self._lock = lock
        self._logs = logs
        self._report = report
        self._rest = b""  # of a line whose end has not arrived
        self._is_skipping = False  # the rest of a line that is too long

    def feed(self, data: bytes | bytearray, count: int) -> None:
        """Take the next bytes of the stream: the first *count* of *data*."""
        begin = 0
        if self._rest or self._is_skipping:
            begin = _first_line_end(data, count)
            if not self._is_skipping:
                self._rest += data[: begin or count]
            if begin:
                self._read(self._rest, len(self._rest))
                self._rest, self._is_skipping = b"", False
        if not (self._rest or self._is_skipping):
            feed = data.rfind(b"\n", begin, count)
            end = max(feed, data.rfind(b"\r", max(feed, begin), count)) + 1
            if end > begin:
                self._read(data, end, begin)
                begin = end
            self._rest = bytes(data[begin:count])
        if len(self._rest) > LONGEST_LINE:
            self._read(self._rest[:LONGEST_LINE] + b"\n", LONGEST_LINE + 1)
            self._rest, self._is_skipping = b"", True

    def end(self) -> None:
        """Take note that nothing more comes: what is left is a line."""
        if self._rest:
            self._read(self._rest + b"\n", len(self._rest) + 1)
            self._rest = b""

    def _read(self, data: bytes | bytearray, end: int, begin: int = 0) -> None:
        for log in self._logs:
            log.add(memoryview(data)[begin:end])
        if not self._reader.may_have_progress(data, begin, end):
            return
        with self._lock:
            readings = self._reader.read_lines(bytes(data[begin:end]), LONGEST_LINE)
        for reading in readings:
            self._report(reading)


class Pump:
    """Passes one stream of a command on, in a thread of its own.

    Args:
        source: The file descriptor to read from, which it closes.
        target: The file descriptor to write to; None to drop the output.
        feed: Gets all that was read: a buffer, and how many of its bytes count.
        end: Called when nothing more comes.
        warn: Called once, with a text, if the output cannot be written.
    """

    def __init__(
        self,
        source: int,
        target: int | None,
        feed: Callable[[bytearray, int], None],
        end: Callable[[], None],
        warn: Callable[[str], object],
    ) -> None:
        self._source = source
        self._target = target
        self._feed, self._end, self._warn = feed, end, warn
        self._has_warned = False
        self._stopped, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    def finish(self, seconds: float, *, is_patient: bool) -> None:
        """Wait until all is read, but no longer than some *seconds*.

        Another process may keep the stream open. What was read by then is passed on.

        Args:
            seconds: How long the stream may stay open.
            is_patient: Whether to wait until it is passed on, too: a user may have stopped the
                program that shows it.
        """
        self._thread.join(seconds)
        os.close(self._stop)
        self._thread.join(None if is_patient else seconds)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        poll.register(self._stopped, select.POLLIN)
        left = _PIPE_SIZE  # when it is stopped
        buffer = bytearray(_PIPE_SIZE)
        view = memoryview(buffer)
        try:
            while left > 0:
                ready = dict(poll.poll())
                if self._source not in ready:
                    break
                count = self._read(view)
                if self._stopped in ready:
                    left -= count
                if not count or not self._pass_on(view[:count]):
                    break
                self._feed(buffer, count)
            self._end()
        finally:
            os.close(self._source)
            os.close(self._stopped)

    def _read(self, view: memoryview) -> int:
        try:
            return os.readv(self._source, [view])
        except OSError:  # a terminal that its last program has closed
            return 0

    def _pass_on(self, data: memoryview) -> bool:
        return self._target is None or self._write(self._target, data)

    def _write(self, target: int, view: memoryview) -> bool:
        """Write all of *view*; return whether anything reads it."""
        while view:
            try:
                view = view[os.write(target, view) :]
            except BrokenPipeError:
                return False
            except BlockingIOError:  # another program has made the terminal non-blocking
                _wait_until_writable(target)
            except OSError as error:
                if not self._has_warned:
                    self._has_warned = True
                    self._warn(f"the output of the command is lost: {error.strerror}")
                return True
        return True


def open_stream(like: int | None) -> tuple[int, int]:
    """Return two file descriptors: to read the output of a command, and for the command to write.

    It is a terminal if *like*, to which the output is passed on, is one: programs then use colours,
    and write their lines at once.
    """
    if like is not None and os.isatty(like):
        try:
            return _open_terminal(like)
        except OSError:  # there are no more of them
            pass
    source, target = os.pipe()
    try:
        import fcntl

        fcntl.fcntl(source, _F_SETPIPE_SZ, _PIPE_SIZE)
    except (ImportError, OSError):  # not Linux, or the user has many pipes
        pass
    return source, target


def copy_size(source: int, target: int) -> None:
    """Give the terminal *target* the size of the terminal *source*."""
    import fcntl
    import termios

    try:
        size = fcntl.ioctl(source, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)
    except OSError:
        pass


def _open_terminal(like: int) -> tuple[int, int]:
    import termios

    source, target = os.openpty()
    settings = termios.tcgetattr(target)
    settings[1] &= ~termios.OPOST  # the real terminal does it: here the bytes stay as they are
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(target, termios.TCSANOW, settings)
    copy_size(like, target)
    return source, target


def _first_line_end(data: bytes | bytearray, count: int | None = None) -> int:
    """Return where the first line of *data* ends, after its end; 0 if it does not."""
    limit = len(data) if count is None else count
    feed = data.find(b"\n", 0, limit)
    back = data.find(b"\r", 0, limit if feed < 0 else feed)
    return (feed if back < 0 else back) + 1


def _wait_until_writable(target: int) -> None:
    select.select([], [target], [])
