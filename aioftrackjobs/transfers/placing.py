"""The components to move between locations: all members, and where each of them is or will be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.paging import fetch_rows
from aioftrackjobs.errors import ArgumentError, EntityError, TransferError
from aioftrackjobs.models import ComponentLocation, Entity
from aioftrackjobs.protocol.query import PAGE_SIZE, bind, select
from aioftrackjobs.transfers.structures import ComponentPlace, Structure, is_file, is_sequence

_COMPONENT = ("id", "name", "file_type", "size", "system_type", "container_id", "version_id")
_LOCATION = ("id", "component_id", "resource_identifier")
#: Containers in containers, of which the deepest must end.
_DEEPEST = 50


async def fetch_where(
    context: EntityContext,
    entity_type: str,
    names: Sequence[str],
    attribute: str,
    values: Iterable[str],
    also: str = "",
) -> list[Entity]:
    """Return the entities whose *attribute* is among *values*, however many these are."""
    distinct = list(dict.fromkeys(values))
    rows: list[Entity] = []
    for start in range(0, len(distinct), PAGE_SIZE):
        ids = {"values": distinct[start : start + PAGE_SIZE]}
        criteria = bind(f"{attribute} in {{values}}", ids) + also
        rows += await fetch_rows(context, select(names, entity_type, criteria))
    return rows


async def fetch_links(
    context: EntityContext, location_id: str, component_ids: Iterable[str]
) -> dict[str, ComponentLocation]:
    """Return what a location says of components, by their ids; it has no others."""
    also = bind(" and location_id is {id}", {"id": location_id})
    rows = await fetch_where(
        context, "ComponentLocation", _LOCATION, "component_id", component_ids, also
    )
    return {row["component_id"]: row for row in rows if isinstance(row, ComponentLocation)}


class Tree:
    """Components with all their members, and the containers that they are in.

    Attributes:
        tops: The components that were given.
    """

    def __init__(self, context: EntityContext) -> None:
        self._context = context
        self._rows: dict[str, Entity] = {}
        self._members: dict[str, list[Entity]] = {}
        self._versions: dict[str, Sequence[str]] = {}
        self.tops: list[Entity] = []

    async def load(self, components: Sequence[Entity], *, recursive: bool) -> None:
        """Load *components* as they are on the server now, with their members if *recursive*.

        Raises:
            EntityError: One of them is not on the server.
        """
        for each in components:
            await self._context.require_created(each.__ftrack_reference__())
        ids = list(dict.fromkeys(str(each["id"]) for each in components))
        await self._fetch("id", ids)
        if missing := [each for each in ids if each not in self._rows]:
            raise EntityError(f"the server has no component {', '.join(missing)}")
        self.tops = [self._rows[each] for each in ids]
        level = self.tops
        for _ in range(_DEEPEST):
            if not recursive or not (containers := [each for each in level if not is_file(each)]):
                break
            level = await self._fetch("container_id", [each["id"] for each in containers])
            for each in level:
                self._members.setdefault(each["container_id"], []).append(each)
        level = self.tops
        while above := {each["container_id"] for each in level} - {None, *self._rows}:
            level = await self._fetch("id", above)
        sequences = [each["id"] for each in self._rows.values() if is_sequence(each)]
        await fetch_where(self._context, "SequenceComponent", ["padding"], "id", sequences)

    async def load_versions(self) -> None:
        """Load what :attr:`.ComponentPlace.version_path` needs."""
        ids = {each["version_id"] for each in self._rows.values()} - {None}
        names = ["version", "link", "asset.name"]
        rows = await fetch_where(self._context, "AssetVersion", names, "id", ids)
        roots = {row["link"][0]["id"] for row in rows if row["link"]}
        projects = await fetch_where(self._context, "Project", ["name"], "id", roots)
        codes = {each["id"]: each["name"] for each in projects}
        for row in rows:
            first, *below = row["link"] or [{}]
            path = (codes.get(first.get("id"), ""), *(each["name"] for each in below[:-1]))
            self._versions[row["id"]] = (*path, row["asset"]["name"], f"v{row['version']:03d}")

    def __iter__(self) -> Iterator[Entity]:
        """Iterate over the components and their members, with the members first."""
        for each in self.tops:
            yield from self._with_members(each)

    def _with_members(self, component: Entity) -> Iterator[Entity]:
        for each in self._members.get(component["id"], ()):
            yield from self._with_members(each)
        yield component

    def place(self, component: Entity, structure: Structure) -> str:
        """Return where *structure* places a component.

        Raises:
            ArgumentError: The structure returns no path below a folder.
            EntityError: The structure needs what the component does not have.
        """
        container = self._rows.get(component["container_id"] or "")
        folder = ""
        if container is not None:
            folder = self.place(container, structure)
            if is_sequence(container):
                folder = str(PurePosixPath(folder).parent)
        version = self._versions.get(component["version_id"] or "", ())
        path: Any = structure(ComponentPlace(component, container, folder, version))
        is_path = isinstance(path, str) and bool(path.strip("/."))
        if not is_path or path.startswith("/") or ".." in PurePosixPath(path).parts:
            raise ArgumentError("structure", "a function that returns a relative path", repr(path))
        return str(path)

    def availability(self, component: Entity, links: Mapping[str, Entity]) -> float:
        """Return what share of a component, in percent, a location with *links* has."""
        members = self._members.get(component["id"])
        if not members:
            return 100.0 if component["id"] in links else 0.0
        shares = [self.availability(each, links) for each in members]
        return round(sum(shares) / len(shares), 9)

    async def _fetch(self, attribute: str, ids: Iterable[str]) -> list[Entity]:
        rows = await fetch_where(self._context, "Component", _COMPONENT, attribute, ids)
        self._rows |= {each["id"]: each for each in rows}
        return rows


def path_in(folder: Path, identifier: str) -> Path:
    """Return the path of a resource identifier, which may be relative or absolute.

    Raises:
        TransferError: It is not below *folder*. Others may have written anything to the server.
    """
    parts = PurePosixPath(identifier.replace("\\", "/")).parts
    path = folder.joinpath(*parts)
    if "\0" in identifier or ".." in parts or not path.is_relative_to(folder) or path == folder:
        raise TransferError(f"{identifier!r} is not below {folder}")
    return path
