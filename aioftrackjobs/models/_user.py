"""The user to whom a Job is shown."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any, ClassVar

from pydantic import Field

from aioftrackjobs.models._entity import Entity
from aioftrackjobs.models._fields import Computed, new_id


class User(Entity):
    """A person, or a program with an account of its own.

    Source:
        docs/protocol.md, section 5.5.
    """

    entity_type: ClassVar[str] = "User"
    is_typed: ClassVar[bool] = True
    default_projections: ClassVar[tuple[str, ...]] = (
        "id",
        "username",
        "first_name",
        "last_name",
        "email",
        "is_active",
        "user_type_id",
        "thumbnail_id",
    )
    immutable_attributes: ClassVar[frozenset[str]] = frozenset({"resource_type"})

    id: str = Field(default_factory=new_id, min_length=1)
    username: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None
    is_active: bool | None = None
    is_otp_enabled: bool | None = None
    is_totp_enabled: bool | None = None
    require_details_update: bool | None = None
    resource_type: str = "user"
    user_type_id: str | None = None
    user_type: Entity | None = None
    thumbnail_id: str | None = None
    thumbnail: Entity | None = None
    thumbnail_url: Computed = None
    custom_attributes: Any = None
    metadata: Any = None
    allocations: MutableSequence[Entity] | None = None
    appointments: MutableSequence[Entity] | None = None
    assignments: MutableSequence[Entity] | None = None
    dashboard_resources: MutableSequence[Entity] | None = None
    memberships: MutableSequence[Entity] | None = None
    timelogs: MutableSequence[Entity] | None = None
    user_security_roles: MutableSequence[Entity] | None = None
