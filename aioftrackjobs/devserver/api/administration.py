"""Operations about the server and its users: facts, API keys, roles, invitations and widgets.

Of security roles, the server enforces only what it would be unsafe to leave open: administrators
change roles, and reset the API keys of others.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any
from urllib.parse import urlencode

from aioftrackjobs.devserver.api.request import ApiRequest, Operation, text_of
from aioftrackjobs.devserver.api_errors import (
    EntityNotFoundError,
    PermissionDeniedError,
    UnsupportedOperationError,
    ValidationError,
    unknown_name,
)
from aioftrackjobs.devserver.files.upload_tokens import UploadTokens

_WIDGETS = ("info", "tasks", "tasks_browser")
_THEMES = (None, "light", "dark")
_SHOWN_OF_USER = ("id", "username", "first_name", "last_name", "thumbnail_id")
#: Seconds that the address of a widget is valid (docs/protocol.md, section 2.7).
_WIDGET_LIFETIME = 360
#: What administrators may do and others may not; real servers have more, which are not known.
_PERMISSIONS = ("manage_security_roles", "reset_api_keys")
_USER_ROLE, _PROJECT = "UserSecurityRole", "UserSecurityRoleProject"


def server_information(request: ApiRequest, operation: Operation) -> dict[str, Any]:
    """Do ``query_server_information``: return the requested facts about this server.

    By default it returns those that a real one sends (docs/protocol.md, section 2.4).
    """
    facts: dict[str, Any] = {
        "version": "dev",
        "schema_hash": request.services.store.tables.schema_hash,
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
        "permissions": permissions_of(request),
    }


def reset_remote(request: ApiRequest, operation: Operation) -> dict[str, Any]:
    """Do ``reset_remote``: give a user a new API key in place of the earlier one.

    A key lets its holder act as the user, so only administrators reset other users' keys.
    """
    if operation.get("reset_type") != "api_key" or operation.get("entity_type") != "User":
        raise ValidationError("Only the 'api_key' of a 'User' can be reset.")
    user = request.row("User", operation.get("entity_key"))
    if user is None or user.get("username") is None:  # groups have their ids in the same table
        raise EntityNotFoundError("'entity_key' must be the id of an existing user.")
    owner = operation["entity_key"]
    if not (request.caller.identity.may_act_as(owner) or request.is_administrator):
        raise PermissionDeniedError(
            "The key of another user is reset by an administrator, or with a global key."
        )
    api_key = request.transaction.set_api_key(owner)
    # Only after the commit: a refused batch leaves the earlier key valid.
    request.after_commit.append(partial(request.services.credentials.set_api_key, owner, api_key))
    return {"action": "reset_remote", "data": {"api_key": api_key}}


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
            request.batch.add(_USER_ROLE, values | {"is_all_open_projects": everywhere})
    elif held is None:
        raise EntityNotFoundError(f"The user {user_id} does not have the role {role_id}.")
    elif action == "update_user_security_role":
        new = _existing(request, operation, "SecurityRole", "new_role_id")
        request.batch.set(_USER_ROLE, held["id"], {"security_role_id": new})
    else:
        request.batch.delete({"entity_type": _USER_ROLE, "entity_key": [held["id"]]})
    return {"action": action, "data": True}


def _change_projects(
    request: ApiRequest, operation: Operation, held: dict[str, Any] | None
) -> None:
    project_id = _existing(request, operation, "Project", "project_id")
    grants = not operation["action"].startswith("revoke")
    if held is None:
        if not grants:
            raise EntityNotFoundError("The user does not have this role.")
        values = {"user_id": operation["user_id"], "security_role_id": operation["role_id"]}
        held = request.batch.add(_USER_ROLE, values)
    values = {"user_security_role_id": held["id"], "project_id": project_id}
    known = request.transaction.read(_PROJECT, values)
    if grants and known is None:
        request.batch.add(_PROJECT, values)
    elif known is not None and not grants:
        request.batch.delete({"entity_type": _PROJECT, "entity_key": [known["id"]]})


def _existing(request: ApiRequest, operation: Operation, entity_type: str, name: str) -> str:
    key = text_of(operation, name)
    request.existing(entity_type, key)
    return key


def invited(
    request: ApiRequest, operation: Operation, entity_type: str, name: str
) -> dict[str, Any]:
    """Do an operation that invites the entity that it names by *name*; no mail is sent."""
    request.existing(entity_type, text_of(operation, name))
    return {"action": operation["action"], "sent": True}


def get_widget_url(request: ApiRequest, operation: Operation) -> dict[str, Any]:
    """Do ``get_widget_url``: return an address that names the widget of a real server."""
    name, theme = text_of(operation, "name"), operation.get("theme")
    if name not in _WIDGETS:
        raise unknown_name("widget", name, _WIDGETS)
    if theme not in _THEMES:
        raise ValidationError("'theme' must be 'light' or 'dark'.")
    parameters = {"name": name, "theme": theme or "light", **_widget_entity(request, operation)}
    signed = signed_widget(request.services.uploads, parameters, time.time() + _WIDGET_LIFETIME)
    url = f"{request.caller.base_url.rstrip('/')}/widget?{urlencode(signed)}"
    return {"action": "get_widget_url", "widget_url": url}


def _widget_entity(request: ApiRequest, operation: Operation) -> dict[str, str]:
    entity_type, key = operation.get("entity_type"), operation.get("entity_key")
    if entity_type is None and key is None:
        return {}
    name = request.services.model.type(text_of(operation, "entity_type")).name
    values = key if isinstance(key, list) else [key]
    if len(values) != 1 or not isinstance(values[0], str):
        raise ValidationError("'entity_key' must be a list with the entity's key.")
    request.existing(name, values[0])
    return {"entity_type": name, "entity_id": values[0]}


def signed_widget(
    uploads: UploadTokens, parameters: dict[str, str], until: float
) -> dict[str, str]:
    """Return the parameters of a widget's address, valid *until* then."""
    signed = parameters | {"expires": str(int(until))}
    return signed | {"signature": uploads.sign("widget", _signed_text(signed))}


def is_widget(uploads: UploadTokens, parameters: dict[str, str]) -> bool:
    """Return whether *parameters* are those of a widget's address that is still valid."""
    signed = {name: value for name, value in parameters.items() if name != "signature"}
    signature = parameters.get("signature", "")
    is_ours = uploads.is_signature("widget", _signed_text(signed), signature)
    return is_ours and int(signed.get("expires", "")) >= time.time()


def _signed_text(parameters: dict[str, str]) -> str:
    return urlencode(sorted(parameters.items()), errors="surrogatepass")
