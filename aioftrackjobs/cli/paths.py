"""Files and folders that are named on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aioftrackjobs.errors import FtrackJobsError

#: Stands for the standard output in place of a file.
STDOUT = Path("-")


class UnusablePathError(FtrackJobsError):
    """An option names a file or folder that cannot be used.

    Attributes:
        option: The option.
        path: What it names.
        reason: What is wrong with it.
    """

    def __init__(self, option: str, path: Path, reason: str) -> None:
        super().__init__(option, path, reason)
        self.option = option
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot use {self.option} {self.path}: {self.reason}"


def read_schemas(path: Path) -> list[dict[str, Any]]:
    """Return the schema documents in a file: the answer to ``query_schemas``.

    Raises:
        UnusablePathError: There is no such file, or it holds something else.
    """
    try:
        documents = json.loads(path.read_bytes())
    except OSError as error:
        raise UnusablePathError("--schemas", path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise UnusablePathError("--schemas", path, f"no JSON: {error}") from error
    if not isinstance(documents, list) or not all(map(_is_schema, documents)):
        reason = "no list of schemas, which are objects with an id and a primary_key"
        raise UnusablePathError("--schemas", path, reason)
    return documents


def _is_schema(document: object) -> bool:
    if not isinstance(document, dict) or not isinstance(document.get("id"), str):
        return False
    key, properties = document.get("primary_key"), document.get("properties", {})
    return isinstance(key, list) and bool(key) and isinstance(properties, dict)


def make_folder(option: str, path: Path) -> None:
    """Make the folder that *option* names, unless it is there.

    Raises:
        UnusablePathError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnusablePathError(option, path, error.strerror or str(error)) from error
