"""PostgreSQL and Redis, started on loopback in a temporary folder, as a user without rights."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Where Debian and others keep what is in no PATH.
_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")

#: Seconds until a service has to respond.
_START = 30.0


class Missing(Exception):  # noqa: N818 - a reason to skip
    """A service is not installed."""


def find_program(name: str) -> str:
    """Return the path of a program.

    Raises:
        Missing: There is none.
    """
    found = shutil.which(name)
    for pattern in () if found else _FOLDERS:
        folders = sorted(Path("/").glob(pattern[1:]), reverse=True)
        found = found or next(
            (str(each / name) for each in folders if (each / name).exists()), None
        )
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _user() -> Mapping[str, Any]:
    """Return whom the services run as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    names = {each.pw_name for each in pwd.getpwall()}
    name = "postgres" if "postgres" in names else "nobody"
    account = pwd.getpwnam(name)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": ()}


@contextmanager
def _folder() -> Iterator[Path]:
    user = _user()
    with tempfile.TemporaryDirectory(prefix="engines", ignore_cleanup_errors=True) as name:
        if user:
            os.chown(name, user["user"], user["group"])
        yield Path(name)


@contextmanager
def _running(command: list[str], folder: Path, is_ready: Callable[[], bool]) -> Iterator[None]:
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, **_user()
        )
    try:
        deadline = time.monotonic() + _START
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text(errors="replace"))
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(2)  # PostgreSQL ends its connections
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def postgres() -> Iterator[str]:
    """Run PostgreSQL; yield how to connect to it, without the name of a database.

    Raises:
        Missing: It is not installed.
    """
    initdb, program = find_program("initdb"), find_program("postgres")
    with _folder() as folder:
        data, port = folder / "data", free_port()
        subprocess.run(
            [initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=folder,
            **_user(),
        )
        options = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "max_connections": 200,
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]

        def is_ready() -> bool:
            """Return whether it takes connections, which the last line of its file says."""
            status = data / "postmaster.pid"
            return status.exists() and status.read_text().rstrip().endswith("ready")

        with _running([program, "-D", str(data), *settings], folder, is_ready):
            yield f"host=127.0.0.1 port={port} user=postgres connect_timeout=20"


@contextmanager
def redis() -> Iterator[str]:
    """Run Redis; yield its URL.

    Raises:
        Missing: It is not installed.
    """
    program = find_program("redis-server")
    with _folder() as folder:
        port = free_port()
        options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]

        def is_ready() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                return False
            return True

        with _running([program, *options], folder, is_ready):
            yield f"redis://127.0.0.1:{port}"
