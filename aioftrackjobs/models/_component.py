"""Files that ftrack keeps track of, and the locations where they are stored."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any, ClassVar

from pydantic import Field

from aioftrackjobs.config.settings import require, require_count
from aioftrackjobs.errors import UnsupportedLocationError
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
    """A place where the files of components are stored.

    Example: ``await session.query("Location where name is 'ftrack.server'").of(Location).one()``

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
