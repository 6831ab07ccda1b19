"""Addresses of files: computed values that are not stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from aioftrackjobs.devserver.schema.model import EntityType
from aioftrackjobs.devserver.schema.quirks import FILE_URLS

#: Makes the signature that permits reading the file of one component.
Signer = Callable[[str], str]


def sources_of(entity_type: EntityType, name: str) -> tuple[str, ...]:
    """Return the stored attributes that *name* needs: itself, or those it is computed from."""
    if name not in entity_type.computed or name in entity_type.attributes:
        return (name,)
    key, *_ = FILE_URLS.get(name, ("",))
    return (key,) if key in entity_type.attributes else ()


class FileUrls:
    """Makes the addresses of files for one request.

    They have a signature for the one component, never an API key.
    """

    def __init__(self, base_url: str, sign: Signer) -> None:
        self.base_url = base_url.rstrip("/")
        self._sign = sign

    def compute(self, entity_type: EntityType, name: str, row: Mapping[str, Any]) -> Any:
        """Return the computed value *name* of the entity in *row*; None where there is none."""
        component_ids = [row.get(source) for source in sources_of(entity_type, name)]
        if not component_ids or component_ids[0] is None:
            return None
        _, action, entry = FILE_URLS[name]
        return {entry: self._address(action, component_ids[0])}

    def _address(self, action: str, component_id: str) -> str:
        signature = self._sign(component_id)
        return (
            f"{self.base_url}/component/{action}"
            f"?id={quote(component_id, safe='')}&signature={signature}"
        )
