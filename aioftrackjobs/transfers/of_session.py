"""FilesOfSession: the methods of a session that upload and download files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from aioftrackjobs.config.settings import (
    require,
    require_callback,
    require_flag,
    require_path,
    require_text,
    require_values,
)
from aioftrackjobs.connection import Connection
from aioftrackjobs.entities.arguments import check_owned, id_of
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.models import Entity, FileComponent, Job, Location, SequenceComponent

if TYPE_CHECKING:
    from aioftrackjobs.transfers.content import Uploadable
    from aioftrackjobs.transfers.control import ProgressCallback
    from aioftrackjobs.transfers.locations import LocationFiles


def files_of(context: EntityContext, location: Location) -> LocationFiles:
    """Return what moves files to and from *location*."""
    from aioftrackjobs.transfers.locations import LocationFiles  # late: many never move a file

    return LocationFiles(context, location)


class FilesOfSession:
    """What :class:`AsyncSession` does with files."""

    _connection: Connection
    _context: EntityContext

    async def create_component(
        self,
        source: Uploadable,
        data: Mapping[str, Any] | None = None,
        location: Entity | Literal["auto"] = "auto",
        *,
        name: str | None = None,
        version: Entity | None = None,
        checksum: bool = True,
        progress: ProgressCallback | None = None,
    ) -> FileComponent:
        """Upload *source* to the server location, and create a component for it.

        It commits by itself. Large files are uploaded in parts, several at the same time. A part
        that fails is repeated as the session's *retry* says::

            plate = await session.create_component("plate.exr", {"name": "Plate"})

        Args:
            source: A path, bytes, a binary file object (its ``read`` may be async) or an async
                iterator of bytes. A folder, or a sequence of paths, becomes a zip archive.
            data: Attributes of the component, such as its ``name``.
            location: The server location, which is also the meaning of "auto".
            name: File name with extension. Needed if *source* has no path.
            version: The AssetVersion that the component belongs to.
            checksum: Verify with MD5 digests that the server has received what was sent.
            progress: Called on the event loop, in the caller's context, with the number of bytes
                sent and of all bytes. It must not block. An error of it ends the upload.

        Raises:
            TransferError: The file could not be read, or the server did not accept it.
            FileChangedError: The file changed while it was uploaded.
            TransportError: The server could not be reached.
            UnsupportedLocationError: This package cannot write to the location.
        """
        from aioftrackjobs.transfers.upload import upload  # late: many never move a file

        self._connection.require_open()
        require_flag("checksum", checksum)
        is_place = location == "auto" or isinstance(location, Entity)
        require(is_place, "location", 'the server location or "auto"', location)
        values = await self._of_version(version, data)
        return await upload(
            self._context,
            source,
            data=values,
            location=None if location == "auto" else location,
            name=name,
            verified=checksum,
            progress=progress,
        )

    async def create_sequence(
        self,
        pattern: str,
        data: Mapping[str, Any] | None = None,
        *,
        version: Entity | None = None,
        checksum: bool = True,
        progress: ProgressCallback | None = None,
    ) -> SequenceComponent:
        """Upload numbered files, and make one component of them, with a member for each file.

        All of them are registered in one commit of their own, when all are uploaded::

            await session.create_sequence("plates/sh010.%04d.exr")  # all that are there
            await session.create_sequence("plates/sh010.%04d.exr [1001-1100]")

        Args:
            pattern: Path of the files, with ``%04d`` or ``%d`` in place of the number, and
                optionally with the frames in brackets, as the package clique writes them.
            data: Attributes of the component, such as its ``name``.
            version: The AssetVersion that the component belongs to.
            checksum: Verify with MD5 digests that the server has received what was sent.
            progress: As for :meth:`create_component`, with the bytes of all files.

        Raises:
            ArgumentError: *pattern* names no sequence.
            TransferError: A file is missing, could not be read, or the server did not accept it.
            ServerError: The server refused to register them. Nothing is left of them.
            TransportError: The server could not be reached.
        """
        from aioftrackjobs.transfers.sequences import upload_sequence  # late: many never do

        self._connection.require_open()
        require_text("pattern", pattern)
        require_flag("checksum", checksum)
        require_callback("progress", progress)
        values = await self._of_version(version, data)
        return await upload_sequence(
            self._context, pattern, data=values, verified=checksum, progress=progress
        )

    async def _of_version(
        self, version: Entity | None, data: Mapping[str, Any] | None
    ) -> Mapping[str, Any]:
        """Return the attributes of a component of *version*."""
        require_values("data", data)
        if version is None:
            return data or {}
        check_owned(self._context, version, "version")
        await self._context.require_created(version.__ftrack_reference__())
        return {"version_id": version["id"], **(data or {})}

    async def create_thumbnail(
        self,
        entity: Entity,
        source: Uploadable,
        data: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
    ) -> FileComponent:
        """Upload a picture, and make it the thumbnail of *entity*; return its component.

        It commits by itself. ftrack scales the picture::

            await session.create_thumbnail(shot, "sh010.jpg")

        Args:
            entity: A task, a version, a project, a user or another entity with a thumbnail.
            source: The picture, as :meth:`create_component` takes it.
            data: Attributes of the component.
            name: File name with extension. Needed if *source* has no path.

        Raises:
            UnknownAttributeError: Entities of this type have no thumbnail.
            TransferError: The file could not be read, or the server did not accept it.
            TransportError: The server could not be reached.
        """
        from aioftrackjobs.transfers.media import create_thumbnail  # late: many never do

        self._connection.require_open()
        check_owned(self._context, entity)
        require_values("data", data)
        return await create_thumbnail(
            self._context, entity, source, data={} if data is None else data, name=name
        )

    async def encode_media(
        self,
        media: Entity | Uploadable,
        *,
        version: Entity | None = None,
        keep_original: bool | None = None,
        name: str | None = None,
    ) -> Job:
        """Let ftrack encode an image or a video for the browser; return its Job.

        The Job ends when the media can be played::

            job = await session.encode_media("sh010.mov", version=version)
            state = await job.wait(timeout=600)

        Args:
            media: A component of the server location, or what to upload.
            version: The AssetVersion that the outputs belong to; it gets a thumbnail.
            keep_original: Whether the component of *media* is kept. Default: if it was there
                before.
            name: File name with extension. Needed if *media* is uploaded and has no path.

        Raises:
            ServerError: The server refused to encode it. What was uploaded is deleted again.
            TransferError: The file could not be read, or the server did not accept it.
            TransportError: The server could not be reached.
        """
        from aioftrackjobs.transfers.media import encode_media  # late: many never do

        self._connection.require_open()
        for argument, entity in (("media", media), ("version", version)):
            if isinstance(entity, Entity) or (argument == "version" and entity is not None):
                check_owned(self._context, entity, argument)
        if keep_original is not None:
            require_flag("keep_original", keep_original)
        return await encode_media(
            self._context, media, version=version, keep_original=keep_original, name=name
        )

    async def download(
        self,
        component: Entity | str | UUID,
        path: str | os.PathLike[str],
        *,
        resume: bool = False,
        checksum: bool = True,
        progress: ProgressCallback | None = None,
    ) -> Path:
        """Download the file of *component* to *path*, and return the path.

        The file is written beside *path* and replaces it when it is complete. If a connection
        breaks, the download continues where it was, as the session's *retry* says::

            await session.download(plate, "plate.exr", resume=True)

        It must have the size that the component has, and the MD5 digest in the response's headers.
        The path has an attribute ``verified_by``: "digest" or "size", or None if the server has
        told neither, so that the file may be incomplete.

        Args:
            component: A component, or its id.
            path: The file to write, or a link to it. A file that exists keeps its mode; a device
                or pipe is refused.
            resume: Keep the files ``.NAME.part`` and ``.NAME.part.json`` beside *path* if the
                download is interrupted, and continue from them if the server's file is the same.
            checksum: Verify the MD5 digest that a header has, or that an entity tag looks like.
            progress: As for :meth:`create_component`; the number of all bytes may be None.

        Raises:
            TransferError: The server has no such file, it is incomplete, or it cannot be written.
            TransportError: The server could not be reached.
        """
        from aioftrackjobs.transfers.download import download  # late: many never move a file

        self._connection.require_open()
        key = id_of("component", component)
        require_path("path", path)
        require_flag("resume", resume)
        require_flag("checksum", checksum)
        require_callback("progress", progress)
        return await download(
            self._context,
            key,
            Path(path),
            resume=resume,
            checksum=checksum,
            progress=progress,
        )
