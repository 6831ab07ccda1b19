"""A minimal client for the tests of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx


class Caller:
    """Sends operations as one user, and returns the response."""

    def __init__(self, http: httpx.AsyncClient, user: str, key: str) -> None:
        self.http = http
        self.user = user
        self.key = key

    async def send(self, content: bytes, **headers: str) -> httpx.Response:
        credentials = {"ftrack-user": self.user, "ftrack-api-key": self.key}
        return await self.http.post("/api", content=content, headers=credentials | headers)

    async def post(self, *operations: Any, **headers: str) -> httpx.Response:
        credentials = {"ftrack-user": self.user, "ftrack-api-key": self.key}
        return await self.http.post("/api", json=list(operations), headers=credentials | headers)

    async def call(self, *operations: Any) -> list[Any]:
        result = (await self.post(*operations)).json()
        assert isinstance(result, list), result
        return result

    async def refused(self, *operations: Any) -> dict[str, Any]:
        response = await self.post(*operations)
        result = response.json()
        assert isinstance(result, dict), result
        assert {"exception", "content", "error_code"} <= result.keys()
        return result

    async def query(self, expression: str) -> list[dict[str, Any]]:
        (result,) = await self.call(query(expression))
        data: list[dict[str, Any]] = result["data"]
        return data

    async def create(self, entity_type: str, **data: Any) -> dict[str, Any]:
        (result,) = await self.call(create(entity_type, **data))
        entity: dict[str, Any] = result["data"]
        return entity

    async def update(self, entity_type: str, *key: str, **data: Any) -> dict[str, Any]:
        (result,) = await self.call(update(entity_type, *key, **data))
        entity: dict[str, Any] = result["data"]
        return entity


def query(expression: str) -> dict[str, Any]:
    return {"action": "query", "expression": expression}


def create(entity_type: str, **data: Any) -> dict[str, Any]:
    return {"action": "create", "entity_type": entity_type, "entity_data": data}


def update(entity_type: str, *key: str, **data: Any) -> dict[str, Any]:
    return {
        "action": "update",
        "entity_type": entity_type,
        "entity_key": list(key),
        "entity_data": data,
    }


def delete(entity_type: str, *key: str) -> dict[str, Any]:
    return {"action": "delete", "entity_type": entity_type, "entity_key": list(key)}


def ref(entity_type: str, key: str) -> dict[str, Any]:
    return {"__entity_type__": entity_type, "id": key}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stored(folder: Path) -> Path:
    """Return where a server keeps the files of components, if its storage is *folder*."""
    return folder / "components"


def new_id() -> str:
    return str(uuid4())
