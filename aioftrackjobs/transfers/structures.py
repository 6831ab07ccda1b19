"""Where the file of a component is in a location on a disk: its *resource identifier*.

Two structures make the same paths as those of the official client, whose names they resemble. A
function that takes a :class:`ComponentPlace` and returns a path is a structure, too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from aioftrackjobs.errors import EntityError
from aioftrackjobs.models import Entity

#: Characters of an id that are folders, so that no folder has a million entries.
_CHUNKED = 4


@dataclass(frozen=True, slots=True)
class ComponentPlace:
    """What a structure knows of a component: a function that makes its path in a location.

    Example:
        ``disk.use_folder("/mnt", lambda place: f"{place.component['id']}{place.file_type}")``

    Attributes:
        component: With ``id``, ``name``, ``file_type`` and ``system_type``; a sequence with its
            ``padding``, too.
        container: The component that it is a member of.
        folder: The path of the folder for the members of the container.
        version_path: Names of the project, of all that is below it, of the asset, and the number
            of the version as in "v003". Empty if the component belongs to no version.
    """

    component: Entity
    container: Entity | None = None
    folder: str = ""
    version_path: Sequence[str] = ()

    @property
    def file_type(self) -> str:
        """The extension with its dot; empty if there is none."""
        return self.component["file_type"] or ""

    @property
    def frames(self) -> str:
        """What stands for the number in the path of a sequence."""
        padding = self.component["padding"]
        return f"%0{padding}d" if padding else "%d"

    @property
    def is_frame(self) -> bool:
        """Whether the component is a member of a sequence."""
        return self.container is not None and is_sequence(self.container)


#: A path below the folder of the location, with slashes.
Structure: TypeAlias = Callable[[ComponentPlace], str]


def is_sequence(component: Entity) -> bool:
    """Return whether *component* is a sequence."""
    return bool(component["system_type"] == "sequence")


def is_file(component: Entity) -> bool:
    """Return whether *component* is a file, with bytes of its own."""
    return component["system_type"] not in ("sequence", "container")


def by_id(place: ComponentPlace) -> str:
    """Return a path made of ids, as ``IdStructure`` of the official client does."""
    component = place.component
    key = component["id"]
    parts = [*key[:_CHUNKED], key[_CHUNKED:]]
    if place.is_frame:
        return f"{place.folder}/file.{component['name']}{place.file_type}"
    if place.container is not None:
        return f"{place.folder}/{key}{place.file_type}"
    if is_sequence(component):
        return "/".join((*parts, f"file.{place.frames}{place.file_type}"))
    return "/".join(parts) + (place.file_type if is_file(component) else "")


def by_version(place: ComponentPlace) -> str:
    """Return a path of readable names, as ``StandardStructure`` of the official client does.

    Raises:
        EntityError: The component belongs to no version.
    """
    name = place.component["name"]
    if place.is_frame and place.container is not None:
        name = f"{place.container['name']}.{name}"
    if is_sequence(place.component):
        name = f"{_plain(name)}.{place.frames}{_plain(place.file_type)}"
    elif is_file(place.component):
        name = _plain(f"{name}{place.file_type}")
    else:
        name = _plain(name)
    if place.container is not None:
        return f"{place.folder}/{name}"
    if not place.version_path:
        raise EntityError(
            f'{place.component!r} belongs to no version, which structure="version" needs; '
            'use structure="id", or a function of your own'
        )
    return "/".join((*map(_plain, place.version_path), name))


def _plain(name: str) -> str:
    """Return *name* as it is good in any file system."""
    text = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^\w.-]", "_", text).strip().lower()


#: By the names that users give.
STRUCTURES: Mapping[str, Structure] = {"id": by_id, "version": by_version}
