"""The built-in entity types: all 116 of a real server, as schema documents.

``types.json`` is the response recorded in the tests of the official JavaScript client, unchanged
(docs/protocol.md, section 5): data of https://github.com/ftrackhq/ftrack-javascript, copyright
ftrack, under the Apache License 2.0.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any, TypeAlias

from pydantic_core import from_json

__all__ = ["BUILTIN_SCHEMAS", "Document"]

Document: TypeAlias = dict[str, Any]

BUILTIN_SCHEMAS: tuple[Document, ...] = tuple(
    from_json(files(__package__).joinpath("types.json").read_bytes())
)
