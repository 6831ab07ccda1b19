"""The security roles of users: who is an administrator, and the operations that change roles.

The server enforces only what it would be unsafe to leave open: administrators change roles, and
reset the API keys of others.
"""

from __future__ import annotations

from typing import Any

from aioftrackjobs.devserver.api.request import ApiRequest, Operation, text_of
from aioftrackjobs.devserver.api_errors import (
    EntityNotFoundError,
    PermissionDeniedError,
    UnsupportedOperationError,
)

#: What administrators may do and others may not; real servers have more, which are not known.
_PERMISSIONS = ("manage_security_roles", "reset_api_keys")
_USER_ROLE, _PROJECT = "UserSecurityRole", "UserSecurityRoleProject"


def permissions_of(request: ApiRequest) -> list[str]:
    """Return what the caller may do."""
    return list(_PERMISSIONS) if request.is_administrator else []


def permissions(request: ApiRequest, _: Operation) -> dict[str, Any]:
    """Do ``permissions``: return for each permission whether the caller has it."""
    granted = permissions_of(request)
    return {"action": "permissions", "data": {name: name in granted for name in _PERMISSIONS}}


def change_role(request: ApiRequest, operation: Operation) -> dict[str, Any]:
    """Do an operation that gives a role to a user, takes it away, or changes its projects."""
    if not request.is_administrator:
        raise PermissionDeniedError("Security roles are changed by administrators.")
    if not {_USER_ROLE, _PROJECT} <= request.services.model.types.keys():
        raise UnsupportedOperationError("The served schemas have no security roles of users.")
    action = operation["action"]
    user_id = _existing(request, operation, "User", "user_id")
    role_id = _existing(request, operation, "SecurityRole", "role_id")
    held = request.transaction.read(_USER_ROLE, {"user_id": user_id, "security_role_id": role_id})
    adds = action == "add_user_security_role"
    if action.endswith("_project") or (adds and operation.get("project_id") is not None):
        _change_projects(request, operation, held)
    elif adds:
        if held is None:
            everywhere = operation.get("all_open_projects", True)
            values = {"user_id": user_id, "security_role_id": role_id}
            _create(request, _USER_ROLE, values | {"is_all_open_projects": everywhere})
    elif held is None:
        raise EntityNotFoundError(f"The user {user_id} does not have the role {role_id}.")
    elif action == "update_user_security_role":
        new = _existing(request, operation, "SecurityRole", "new_role_id")
        key = {"entity_type": _USER_ROLE, "entity_key": [held["id"]]}
        request.batch.update(key | {"entity_data": {"security_role_id": new}})
    else:
        request.batch.delete({"entity_type": _USER_ROLE, "entity_key": [held["id"]]})
    return {"action": action, "data": True}


def _change_projects(
    request: ApiRequest, operation: Operation, held: dict[str, Any] | None
) -> None:
    """Let the user have the role on one more project, or one less."""
    project_id = _existing(request, operation, "Project", "project_id")
    grants = not operation["action"].startswith("revoke")
    if held is None:
        if not grants:
            raise EntityNotFoundError("The user does not have this role.")
        values = {"user_id": operation["user_id"], "security_role_id": operation["role_id"]}
        held = _create(request, _USER_ROLE, values)
    values = {"user_security_role_id": held["id"], "project_id": project_id}
    known = request.transaction.read(_PROJECT, values)
    if grants and known is None:
        _create(request, _PROJECT, values)
    elif known is not None and not grants:
        request.batch.delete({"entity_type": _PROJECT, "entity_key": [known["id"]]})


def _create(request: ApiRequest, entity_type: str, values: dict[str, Any]) -> dict[str, Any]:
    return request.batch.create({"entity_type": entity_type, "entity_data": values})


def _existing(request: ApiRequest, operation: Operation, entity_type: str, name: str) -> str:
    key = text_of(operation, name)
    request.existing(entity_type, key)
    return key
