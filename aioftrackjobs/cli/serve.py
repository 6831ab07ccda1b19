"""What ``aioftrackjobs serve`` prints: variables for a shell, what is served, and requests."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aioftrackjobs.cli.arguments import UsageError
from aioftrackjobs.cli.texts import plain
from aioftrackjobs.devserver import ServerStartError

if TYPE_CHECKING:
    from aioftrackjobs.devserver import ServerHandle

_REQUESTS = "aioftrackjobs.devserver.pages.request_log"


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is printed when a server is ready.

    Attributes:
        schemas: File of its schemas; None for the built-in ones.
        database: File of its entities; None if they are in memory.
        storage: Folder of its files; None if that is a temporary one.
    """

    schemas: Path | None
    database: Path | None
    storage: Path | None

    def show(self, server: ServerHandle) -> None:
        """Print the variables to the standard output, and all else to the standard error."""
        print(f"export FTRACK_SERVER={shlex.quote(server.url)}")
        print(f"export FTRACK_API_USER={shlex.quote(server.api_user)}")
        print(f"export FTRACK_API_KEY={shlex.quote(server.api_key)}", flush=True)
        lines = [
            "Serving until Ctrl-C. Paste these lines into another shell.",
            f"A browser shows the Jobs at {server.url}/",
            self._contents(server),
            self._places(),
        ]
        for line in lines:
            print(plain(line), file=sys.stderr)

    def _contents(self, server: ServerHandle) -> str:
        source = f"those of {self.schemas}" if self.schemas else "built in"
        count = len(server.inspector.entity_types)
        types = "1 entity type" if count == 1 else f"{count} entity types"
        return f"It holds {server.inspector.contents}; its {types} are {source}."

    def _places(self) -> str:
        entities = f"in {self.database}" if self.database else "in memory"
        files = f"in {self.storage}" if self.storage else "in a temporary folder"
        end = "" if self.database and self.storage else ", and what is not kept is gone at the end"
        if not self.database and not self.storage:
            end = ", which is gone at the end"
        return f"Entities are {entities}, files {files}{end}."


@contextmanager
def checked_options() -> Iterator[None]:
    """Inside the block, an option that is wrong in itself is a mistake of the user.

    Raises:
        UsageError: An option is wrong.
        ServerStartError: The system refuses the address, as when another program has the port.
    """
    try:
        yield
    except ServerStartError as error:
        if isinstance(error.__cause__, OSError) and error.option == "host":
            raise
        raise UsageError(str(error)) from error


def log_requests() -> None:
    """Print a line for each request, and for connections to the event hub, from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    requests = logging.getLogger(_REQUESTS)
    requests.addHandler(handler)
    requests.setLevel(logging.INFO)
    requests.propagate = False
