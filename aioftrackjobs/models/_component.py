"""Files that ftrack keeps track of, and the locations where they are stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterable, MutableSequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from aioftrackjobs.config.settings import require, require_count
from aioftrackjobs.errors import EntityError, UnsupportedLocationError
from aioftrackjobs.models._entity import Entity
from aioftrackjobs.models._values import Computed, new_id
from aioftrackjobs.protocol.upload import SERVER_LOCATION_ID


class Component(Entity):
    """A file, a sequence of files, or a container of components.

    Example: ``await session.create_component("plate.exr", {"name": "plate"})``

    The server returns components as their subtype, such as :class:`FileComponent`, and sets their
    ``system_type``. :meth:`AsyncSession.create_component` uploads a file and creates one.

    Source:
        docs/protocol.md, section 5.4.
    """

    entity_type: ClassVar[str] = "Component"
    is_typed: ClassVar[bool] = True
    default_projections: ClassVar[tuple[str, ...]] = (
        "id",
        "name",
        "file_type",
        "size",
        "system_type",
        "container_id",
        "version_id",
    )

    id: str = Field(default_factory=new_id, min_length=1)
    name: str = "main"
    #: Extension of the file, with the leading dot: ``".mov"``.
    file_type: str | None = None
    #: Size in bytes.
    size: int = 0
    system_type: str | None = None
    container_id: str | None = None
    container: Component | None = None
    version_id: str | None = None
    version: Entity | None = None
    component_locations: MutableSequence[ComponentLocation] | None = None
    metadata: Any = None


class FileComponent(Component):
    """One file.

    Example: ``file = await job.attach("report.pdf"); print(file.size)``
    """

    entity_type: ClassVar[str] = "FileComponent"


class ContainerComponent(Component):
    """A group of components.

    Example: ``session.create(ContainerComponent, {"name": "delivery"})``
    """

    entity_type: ClassVar[str] = "ContainerComponent"

    members: MutableSequence[Component] | None = None


class SequenceComponent(Component):
    """A sequence of numbered files, such as frames.

    Example: ``await session.create_sequence("plates/sh010.%04d.exr")``
    """

    entity_type: ClassVar[str] = "SequenceComponent"
    default_projections: ClassVar[tuple[str, ...]] = (*Component.default_projections, "padding")

    members: MutableSequence[Component] | None = None
    #: Number of digits of a frame number; 0 if it is not padded.
    padding: int = 0


class ComponentLocation(Entity):
    """The fact that a location stores the file of a component.

    Example: ``await session.populate(plate, "component_locations.resource_identifier")``
    """

    entity_type: ClassVar[str] = "ComponentLocation"
    is_typed: ClassVar[bool] = True
    default_projections: ClassVar[tuple[str, ...]] = (
        "id",
        "component_id",
        "location_id",
        "resource_identifier",
    )

    id: str = Field(default_factory=new_id, min_length=1)
    component_id: str | None = None
    component: Component | None = None
    location_id: str | None = None
    location: Location | None = None
    #: Where in the location the file is: a path; in ``ftrack.server``, the id of the component.
    resource_identifier: str | None = None
    url: Computed = None


class Location(Entity):
    """A place where the files of components are stored: ``ftrack.server``, or a folder.

    ::

        server = await session.query('Location where name is "ftrack.server"').of(Location).one()
        disk = await session.ensure(Location, {"name": "studio.disk"})
        disk.use_folder("/mnt/projects", structure="version")
        await disk.add_component(plate, server)
        print(await disk.get_filesystem_path(plate))

    Source:
        docs/protocol.md, section 6.
    """

    entity_type: ClassVar[str] = "Location"
    is_typed: ClassVar[bool] = True
    default_projections: ClassVar[tuple[str, ...]] = ("id", "name", "label", "description")

    id: str = Field(default_factory=new_id, min_length=1)
    name: str | None = None
    label: str | None = None
    description: str | None = None
    location_components: MutableSequence[ComponentLocation] | None = None

    @property
    def is_server(self) -> bool:
        """Whether this is ``ftrack.server``, which serves files over HTTP."""
        return bool(self._current("id") == SERVER_LOCATION_ID)

    def use_folder(
        self,
        path: str | os.PathLike[str],
        structure: Literal["id", "version"] | Callable[[Any], str] = "id",
    ) -> None:
        """Say which folder this location is on this machine, for as long as the session lives.

        Example: ``disk.use_folder("/mnt/projects", structure="version")``

        Nothing is sent: other machines may have it elsewhere. The official client calls the folder
        the *prefix* of an accessor for disks.

        Args:
            path: The folder.
            structure: Where new files go: "id" and "version" as with ``IdStructure`` and
                ``StandardStructure`` of the official client, or a function that makes a path below
                the folder from a :class:`ComponentPlace`.

        Raises:
            ArgumentError: The path or the structure is none.
            UnsupportedLocationError: This is ``ftrack.server``.
        """
        self._files().use_folder(path, structure)

    def add_component(
        self,
        component: Component,
        source: Location | str | os.PathLike[str],
        *,
        recursive: bool = True,
    ) -> Coroutine[Any, Any, None]:
        """Bring the file of *component* here, and register it in a commit of its own.

        Example: ``await disk.add_component(plate, server)``

        Sequences and containers bring their members: all files arrive, or none. A file has a
        temporary name until it is complete. If the call fails or is cancelled, what it has
        made is removed again.

        Args:
            component: A component that is committed.
            source: The location that has its file; or the path of the file, for a single file.
            recursive: Whether members are added, too.

        Raises:
            ComponentInLocationError: The component, or a member, is here already.
            ComponentNotInLocationError: A file is not in *source*.
            MissingFileError: It should be there, and is not.
            UnsupportedLocationError: A location is no folder that is known; see
                :meth:`use_folder`.
            TransferError: A file was not transferred, or there is another one in its place.
            ServerError: The server refused to register the component.
            CommitUncertainError: It may be registered. The files stay.
        """
        adding: Coroutine[Any, Any, None] = self._files().add(
            [component], source, recursive=recursive
        )
        return adding

    def add_components(
        self,
        components: Iterable[Component],
        source: Location | str | os.PathLike[str],
        *,
        recursive: bool = True,
    ) -> Coroutine[Any, Any, None]:
        """Bring the files of several components here: all of them, or none.

        Example: ``await disk.add_components(version["components"], server)``

        It is as :meth:`add_component`, with one commit for all.
        """
        adding: Coroutine[Any, Any, None] = self._files().add(
            components, source, recursive=recursive
        )
        return adding

    def remove_component(
        self, component: Component, *, recursive: bool = True
    ) -> Coroutine[Any, Any, None]:
        """Unregister *component* here in a commit of its own, and then remove its file.

        Example: ``await disk.remove_component(plate)``

        The component stays, and so does what other locations have of it.

        Args:
            component: A component that this location has.
            recursive: Whether members are removed, too.

        Raises:
            ComponentNotInLocationError: This location does not have it.
            UnsupportedLocationError: This location is no folder that is known.
            ServerError: The server refused to. The file stays.
        """
        removal: Coroutine[Any, Any, None] = self._files().remove([component], recursive=recursive)
        return removal

    def get_filesystem_path(self, component: Component) -> Coroutine[Any, Any, Path]:
        """Return the path of *component* on this machine, whether or not there is a file.

        Example: ``path = await disk.get_filesystem_path(plate)``

        Raises:
            ComponentNotInLocationError: This location does not have the component.
            UnsupportedLocationError: This location is no folder that is known.
        """
        path: Coroutine[Any, Any, Path] = self._files().path(component)
        return path

    def get_resource_identifier(self, component: Component) -> Coroutine[Any, Any, str]:
        """Return where this location has *component*: as registered, below its folder.

        Example: ``text = await disk.get_resource_identifier(plate)``

        Raises:
            ComponentNotInLocationError: This location does not have the component.
        """
        identifier: Coroutine[Any, Any, str] = self._files().identifier(component)
        return identifier

    def get_component_availability(self, component: Component) -> Coroutine[Any, Any, float]:
        """Return how many percent of *component*, that is of its members, this location has.

        Example: ``is_complete = await disk.get_component_availability(plate) == 100``

        It says what is registered; no disk is read.

        Raises:
            EntityError: The server has no such component.
        """
        share: Coroutine[Any, Any, float] = self._files().availability(component)
        return share

    # Each returns what its owner does: in blocking code, that waits, and returns the result.

    def _files(self) -> Any:
        if not self._owner:
            raise EntityError(f"{self!r} belongs to no session")
        return self._owner.files_of(self)

    def get_url(self, component: Component) -> str:
        """Return the URL to download the file of *component* from.

        The URL contains the API key in clear text: do not log it, store it in ftrack, or show it
        to other users.

        Raises:
            ArgumentError: *component* is no entity.
            UnsupportedLocationError: The location does not serve files over HTTP, or this entity
                belongs to no session.
        """
        return self._url_of(component)

    def get_thumbnail_url(self, component: Component, size: int = 300) -> str:
        """Return the URL of a picture of *component*, which fits into a square of *size* pixels.

        It contains the API key in clear text, as that of :meth:`get_url`. ftrack shows a common
        picture for a component without one.

        Raises:
            ArgumentError: *component* is no entity, or *size* no positive number.
            UnsupportedLocationError: As for :meth:`get_url`.
        """
        require_count("size", size)
        return self._url_of(component, size)

    def _url_of(self, component: Component, size: int | None = None) -> str:
        require(isinstance(component, Entity), "component", "a component", component)
        if not self.is_server or not self._owner:
            raise UnsupportedLocationError(f"{self!r} has no URL for {component!r}")
        return self._owner.component_url(component["id"], size)
