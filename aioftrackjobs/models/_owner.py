"""What entities belong to: the session's side of them, as a protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from aioftrackjobs.models._entity import Entity


class Owner(Protocol):
    """What an entity belongs to: it hears of changes, and knows the entity types."""

    def record_update(self, entity: Entity, name: str, value: object) -> None:
        """Record that *name* was set to *value*; raises if the value cannot travel."""
        ...

    def record_reset(self, entity: Entity, name: str) -> None:
        """Record that the local change of *name* was taken back."""
        ...

    def attributes_of(self, entity_type: str) -> tuple[str, ...]:
        """Return the attribute names that the server's schemas tell; empty if not known."""
        ...

    def component_url(self, component_id: str) -> str:
        """Return the address of a component's file. It carries the API key."""
        ...
