"""``query_server_information`` (protocol reference, section 2.4)."""

from __future__ import annotations

from typing import Any

from aioftrackjobs.devserver.api.request import ApiRequest, Operation
from aioftrackjobs.devserver.api_errors import ValidationError

_SHOWN_OF_USER = ("id", "username", "first_name", "last_name", "thumbnail_id")


def server_information(
    request: ApiRequest, operation: Operation, schema_hash: str
) -> dict[str, Any]:
    """Return the requested facts about this server; by default those that a real one sends."""
    facts: dict[str, Any] = {
        "version": "dev",
        "schema_hash": schema_hash,
        "is_timezone_support_enabled": True,
        "storage_scenario": {"scenario": "ftrack.automatic", "data": {}},
    }
    wanted = operation.get("values")
    if wanted is None:
        return facts
    if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
        raise ValidationError("'values' must be a list of names.")
    facts |= {
        "user_information": _user_information(request),
        "company_information": {"name": "aioftrackjobs", "logo_url": None},
        "license": [],
        "is_nested_subqueries_enabled": True,
    }
    return {name: facts[name] for name in wanted if name in facts}


def _user_information(request: ApiRequest) -> dict[str, Any]:
    """Return the caller; not as an entity, which the official Python client cannot read here."""
    row = request.user or {"username": request.caller.username}
    return {
        **{name: row.get(name) for name in _SHOWN_OF_USER},
        "thumbnail_url": None,
        "access_key_id": None,
        "is_global_access_key": request.caller.identity.is_global,
        "restricted_user": False,
        "permissions": [],
    }
