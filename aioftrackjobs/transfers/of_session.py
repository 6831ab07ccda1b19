"""FilesOfSession: the methods of a session that upload and download files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from aioftrackjobs.config.settings import require, require_callback, require_flag, require_path
from aioftrackjobs.connection import Connection
from aioftrackjobs.entities.arguments import id_of
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.models import Entity, FileComponent

if TYPE_CHECKING:
    from aioftrackjobs.transfers.content import Uploadable
    from aioftrackjobs.transfers.control import ProgressCallback


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
        return await upload(
            self._context,
            source,
            data={} if data is None else data,
            location=None if location == "auto" else location,
            name=name,
            verified=checksum,
            progress=progress,
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
