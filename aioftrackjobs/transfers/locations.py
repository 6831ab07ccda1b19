"""Moves the files of components between locations: folders on disks, and ``ftrack.server``.

First all files arrive, each under a temporary name until it is complete. Then one commit registers
the components and their members in the location (:class:`.Registration`). If either fails, or the
caller is cancelled, what arrived is removed again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

from anyio.to_thread import run_sync

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.config.settings import require, require_path
from aioftrackjobs.entities.arguments import check_owned, list_of_owned
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import (
    ComponentInLocationError,
    ComponentNotInLocationError,
    UnsupportedLocationError,
)
from aioftrackjobs.models import Entity, FileComponent, Location
from aioftrackjobs.transfers.content import open_content
from aioftrackjobs.transfers.control import Detached, StopToken, for_each, run_in_background
from aioftrackjobs.transfers.copying import copy_file, made_beside, make_folder
from aioftrackjobs.transfers.download import download
from aioftrackjobs.transfers.placing import Tree, fetch_links, path_in
from aioftrackjobs.transfers.structures import STRUCTURES, Structure, is_file, is_sequence
from aioftrackjobs.transfers.upload import Registration, remove_file

logger: SafeLogger = SafeLogger(__name__)

#: Seconds for which the caller of a removal waits for it; then it goes on in the background.
_REMOVAL_GRACE = 60.0

#: Where a file is before it is added: its path; None on the server.
Sources: TypeAlias = Callable[[Entity], Path | None]


class Folder(NamedTuple):
    """Where a location is on this machine.

    Attributes:
        path: The folder, which is absolute.
        structure: Says where a component belongs in it.
    """

    path: Path
    structure: Structure


class LocationFiles:
    """The files of one location.

    Args:
        context: The entities of the session.
        location: The location.
    """

    def __init__(self, context: EntityContext, location: Location) -> None:
        self._context = context
        self._location = location
        self._id = str(location["id"])

    def use_folder(self, path: object, structure: object) -> None:
        """Note that the location is a folder on this machine, for all of the session."""
        require_path("path", path)
        found: Any = STRUCTURES.get(structure) if isinstance(structure, str) else structure
        require(callable(found), "structure", '"id", "version" or a function', structure)
        if self._location.is_server:
            raise UnsupportedLocationError("ftrack.server is no folder")
        folder = Path(os.path.abspath(cast("str", path)))  # noqa: PTH100 - it takes ".." away
        self._context.folders[self._id] = Folder(folder, found)

    async def add(self, components: object, source: object, *, recursive: bool) -> None:
        """Bring the files of *components* here from *source*, and register them in one commit.

        Raises:
            ComponentInLocationError: One of them is here already. Nothing was done.
            ComponentNotInLocationError: A file is not in *source*.
            TransferError: A file is missing, or was not transferred. Nothing is left of it.
            ServerError: The server refused to register them. Nothing is left of them.
        """
        given = list_of_owned(self._context, components)
        folder = self._folder()
        tree = Tree(self._context)
        await tree.load(given, recursive=recursive)
        await self._require_absent(tree)
        source_of = await self._sources(tree, source)
        if folder is not None:
            await tree.load_versions()
            places = {each["id"]: tree.place(each, folder.structure) for each in tree}
        else:
            places = {each["id"]: each["id"] for each in tree}
        registration = Registration(self._context)

        async def bring(component: Entity) -> None:
            found = source_of(component)
            if folder is not None:
                target = path_in(folder.path, places[component["id"]])
                await self._fetch(component, found, target, registration.undo)
            elif found is not None and isinstance(component, FileComponent):
                admission = self._context.connection.transfer_limiter.admit()
                async with admission, open_content(found, found.name) as content:
                    await registration.send_file(component, content, verified=True)

        try:
            await for_each((each for each in tree if is_file(each)), bring)
            for each in tree:
                if folder is not None and not is_file(each) and not is_sequence(each):
                    path = path_in(folder.path, places[each["id"]])
                    await run_sync(make_folder, path, registration.undo)
                registration.place(each["id"], self._id, places[each["id"]])
        except BaseException as exc:
            await registration.withdraw(exc)
            raise
        await registration.commit()

    async def remove(self, components: object, *, recursive: bool) -> None:
        """Unregister *components* here in one commit, and then remove their files.

        Raises:
            ComponentNotInLocationError: One of them is not here. Nothing was done.
        """
        given = list_of_owned(self._context, components)
        folder = self._folder()
        tree = Tree(self._context)
        await tree.load(given, recursive=recursive)
        links = await fetch_links(self._context, self._id, (each["id"] for each in tree))
        self._require_present(tree.tops, links)
        there = [each for each in tree if each["id"] in links]
        paths = {
            each["id"]: path_in(folder.path, links[each["id"]]["resource_identifier"])
            for each in there
            if folder is not None
        }
        unit = self._context.new_unit()
        for link in links.values():
            unit.record_delete(link)
        await unit.commit()

        async def remove_files() -> None:
            for each in there:
                if folder is not None:
                    await run_sync(_remove, paths[each["id"]])
                elif is_file(each):
                    await remove_file(self._context.connection, each["id"])

        removal = Detached(self._context.connection.background, remove_files)
        await removal.wait(_REMOVAL_GRACE)

    async def identifier(self, component: Entity) -> str:
        """Return where the location keeps *component*, as registered.

        Raises:
            ComponentNotInLocationError: It does not.
        """
        check_owned(self._context, component, "component")
        links = await fetch_links(self._context, self._id, [component["id"]])
        self._require_present([component], links)
        return str(links[component["id"]]["resource_identifier"])

    async def path(self, component: Entity) -> Path:
        """Return the path of *component* on this machine, whether or not there is a file.

        Raises:
            ComponentNotInLocationError: The location does not have it.
            UnsupportedLocationError: The location is no folder of this machine.
        """
        if (folder := self._folder()) is None:
            raise UnsupportedLocationError("ftrack.server is no folder; use session.download()")
        return path_in(folder.path, await self.identifier(component))

    async def availability(self, component: Entity) -> float:
        """Return how many percent of *component* are registered here."""
        check_owned(self._context, component, "component")
        tree = Tree(self._context)
        await tree.load([component], recursive=True)
        links = await fetch_links(self._context, self._id, (each["id"] for each in tree))
        return tree.availability(tree.tops[0], links)

    def _folder(self) -> Folder | None:
        """Return where the location is on this machine; None if it is the server's.

        Raises:
            SessionStateError: The session is not open.
            UnsupportedLocationError: It is neither.
        """
        self._context.connection.require_open()
        if self._location.is_server:
            return None
        folder: Folder | None = self._context.folders.get(self._id)
        if folder is None:
            raise UnsupportedLocationError(
                f"{self._location!r} is not known to be on this machine; "
                'call location.use_folder("/mnt/...") first'
            )
        return folder

    async def _require_absent(self, tree: Tree) -> None:
        links = await fetch_links(self._context, self._id, (each["id"] for each in tree))
        if links:
            raise ComponentInLocationError(str(self._location), tuple(links))

    def _require_present(self, components: Sequence[Entity], links: Mapping[str, Entity]) -> None:
        missing = tuple(each["id"] for each in components if each["id"] not in links)
        if missing:
            raise ComponentNotInLocationError(str(self._location), missing)

    async def _sources(self, tree: Tree, source: object) -> Sources:
        """Return what finds the files of components: in a location, or at a path.

        Raises:
            ComponentNotInLocationError: The location does not have all of them.
        """
        if not isinstance(source, Location):
            require_path("source", source)
            files = [each for each in tree if is_file(each)]
            is_one = len(files) == 1 == len(list(tree))
            require(is_one, "source", "a location; a path is for one file", source)
            path = Path(os.fsdecode(cast("str", source)))
            return lambda _: path
        check_owned(self._context, source, "source")
        place = LocationFiles(self._context, source)
        folder = place._folder()
        files = [each for each in tree if is_file(each)]
        links = await fetch_links(self._context, place._id, (each["id"] for each in files))
        place._require_present(files, links)
        if folder is None:
            return lambda _: None
        paths = {
            each: path_in(folder.path, link["resource_identifier"]) for each, link in links.items()
        }
        return lambda component: paths[component["id"]]

    async def _fetch(
        self,
        component: Entity,
        source: Path | None,
        target: Path,
        undo: list[Callable[[], object]],
    ) -> None:
        """Make the file *target* from *source*, or from the server.

        This runs in the background, as uploads do: a thread that writes cannot be cancelled, and
        what it leaves must be removed.
        """
        connection, stop_token = self._context.connection, StopToken()

        async def make() -> None:
            async with made_beside(target, undo) as path:
                if source is None:
                    await download(self._context, component["id"], path)
                else:
                    size = component["size"] or None
                    async with connection.transfer_limiter.admit():
                        await copy_file(source, path, size, stop_token.check)

        await run_in_background(connection.background, make, stop_token)


def _remove(path: Path) -> None:
    """Remove a file, or a folder that is empty; what others have removed is gone already."""
    try:
        with suppress(FileNotFoundError):
            path.rmdir() if path.is_dir() else path.unlink()
    except OSError as exc:
        logger.warning("%(path)s is not removed: %(error)s", path=path, error=exc.strerror)
