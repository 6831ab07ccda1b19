"""The built-in entity types, as schema documents in JSON files.

They follow the recorded response of a real server (docs/protocol.md, section 5), without the
relations to types that are not declared here.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any, TypeAlias

from pydantic_core import from_json

__all__ = ["BUILTIN_SCHEMAS", "Document"]

Document: TypeAlias = dict[str, Any]

#: The files; their order matters, as the hash of the schemas depends on it.
_FILES = (
    "jobs",
    "files",
    "people",
    "contexts",
    "vocabulary",
    "workflows",
    "publishing",
    "reviews",
    "customization",
)

BUILTIN_SCHEMAS: tuple[Document, ...] = tuple(
    document
    for name in _FILES
    for document in from_json(files(__package__).joinpath(f"{name}.json").read_bytes())
)
