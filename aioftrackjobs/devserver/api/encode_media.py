"""``encode_media``: components that a browser can show, made in the background.

An image becomes a JPEG; a video a copy under its own type, and a grey picture in place of its first
one, as nothing here decodes videos. The picture becomes the thumbnail of the version.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic_core import to_json

from aioftrackjobs.devserver.api.request import ApiRequest, Operation, text_of
from aioftrackjobs.devserver.api.server_jobs import JobRun, WorkFailedError, WriteResult, queue_job
from aioftrackjobs.devserver.api_errors import ApiError, ValidationError
from aioftrackjobs.devserver.files.movies import facts_of
from aioftrackjobs.devserver.files.storage import IncomingFile, is_storable
from aioftrackjobs.devserver.files.thumbnails import PLACEHOLDER, picture_of
from aioftrackjobs.devserver.mutations.batch import Batch
from aioftrackjobs.protocol.upload import SERVER_LOCATION_ID

_BLOCK = 1024 * 1024
#: Pixels on the longer side of a review image.
_IMAGE_SIZE = 1920
#: The format of the picture for a video.
_POSTER = "image/png"
#: Names that are reserved for what a browser shows (docs/protocol.md, section 5.4).
_NAMES = {
    "image/jpeg": ("ftrackreview-image", ".jpg"),
    _POSTER: ("thumbnail", ".png"),
    "video/mp4": ("ftrackreview-mp4", ".mp4"),
    "video/webm": ("ftrackreview-webm", ".webm"),
}


@dataclass(frozen=True, slots=True)
class _Encoding:
    """A component, and what is made of it.

    Attributes:
        formats: The formats of the outputs by id, that of the picture last; none if the component
            is neither an image nor a video.
        version_id: The version that the outputs belong to.
    """

    source: Mapping[str, Any]
    formats: Mapping[str, str]
    keep_original: bool
    version_id: str | None


def encode_media(request: ApiRequest, operation: Operation) -> dict[str, Any]:
    """Do ``encode_media``: queue a Job, whose outputs exist at once and get their files later."""
    encoding = _encoding_of(request, operation)
    outputs = [{"format": kind, "component_id": own} for own, kind in encoding.formats.items()]
    for output_id, kind in encoding.formats.items():
        _create_output(request, encoding, output_id, kind)
    job_id = str(uuid4())
    data = {
        "description": f"Encoding {encoding.source.get('name') or 'media'}",
        "output": outputs,
        "source_component_id": encoding.source["id"],
        "keep_original": encoding.keep_original,
    }
    queue_job(request, job_id, data, partial(_encode, encoding))
    for output in outputs:
        values = {"job_id": job_id, "component_id": output["component_id"]}
        request.batch.add("JobComponent", values)
    return {"action": "encode_media", "job_id": job_id}


def _encoding_of(request: ApiRequest, operation: Operation) -> _Encoding:
    source = request.existing("Component", text_of(operation, "component_id"))
    version_id = operation.get("version_id")
    if version_id is not None:
        request.existing("AssetVersion", version_id)
    keep_original = operation.get("keep_original", True)
    if isinstance(keep_original, str):  # as the official Python client sends it
        keep_original = {"true": True, "false": False}.get(keep_original.lower())
    if not isinstance(keep_original, bool):
        raise ValidationError("'keep_original' must be true or false.")
    kind = mimetypes.guess_type(f"x{source.get('file_type') or ''}")[0] or ""
    wanted = {"image": ["image/jpeg"], "video": [kind, _POSTER]}.get(kind.partition("/")[0], [])
    formats = {str(uuid4()): each for each in wanted}
    return _Encoding(source, formats, keep_original, version_id)


def _create_output(request: ApiRequest, encoding: _Encoding, output_id: str, kind: str) -> None:
    other = "ftrackreview-" + kind.partition("/")[2], encoding.source.get("file_type")
    name, file_type = _NAMES.get(kind, other)
    values = {
        "id": output_id,
        "name": name,
        "file_type": file_type,
        "version_id": encoding.version_id,
    }
    request.batch.add("FileComponent", values)


def _encode(encoding: _Encoding, run: JobRun) -> WriteResult:
    if not encoding.formats:
        raise WorkFailedError("This is neither an image nor a video, as far as its name says.")
    storage = run.services.storage
    source_id = encoding.source["id"]
    if not is_storable(source_id) or not storage.path(source_id).is_file():
        raise WorkFailedError("The component has no file on this server.")
    facts = {}
    for output_id, kind in encoding.formats.items():
        made = storage.incoming(output_id, hashed=False)
        run.rollback.callback(made.discard)
        if kind == "image/jpeg":
            made.write(_picture(storage.path(source_id)))
        elif kind == _POSTER:
            made.write(PLACEHOLDER)
        else:
            _copy(run, source_id, made)
        # Before the Job is done: a client that sees that must find the file.
        run.rollback.callback(storage.remove, output_id)
        made.keep()
        is_picture = kind.startswith("image/")
        shown = {"format": "image"} if is_picture else facts_of(storage.path(output_id))
        facts[output_id] = (made.size, shown)
    if not encoding.keep_original:
        run.after_commit.append(partial(storage.remove, source_id))
    return partial(_write_result, run.services.model.types, encoding, facts)


def _picture(path: Path) -> bytes:
    try:
        return picture_of(path, _IMAGE_SIZE)[0]
    except ApiError as error:
        raise WorkFailedError(error.content) from None


def _copy(run: JobRun, source_id: str, made: IncomingFile) -> None:
    with run.services.storage.path(source_id).open("rb") as source:
        while block := source.read(_BLOCK):
            run.check_stop()
            made.write(block)


def _write_result(
    types: Mapping[str, Any],
    encoding: _Encoding,
    facts: Mapping[str, tuple[int, Mapping[str, Any]]],
    batch: Batch,
) -> None:
    for output_id, (size, shown) in facts.items():
        batch.set("FileComponent", output_id, {"size": size})
        location = {"component_id": output_id, "location_id": SERVER_LOCATION_ID}
        text = to_json(shown).decode()
        about = {"parent_id": output_id, "parent_type": "FileComponent", "key": "ftr_meta"}
        for name, values in (
            ("ComponentLocation", location | {"resource_identifier": output_id}),
            ("Metadata", about | {"value": text}),
        ):
            if name in types:
                batch.add(name, values)
    if encoding.version_id is not None and types["AssetVersion"].has("thumbnail_id"):
        batch.set("AssetVersion", encoding.version_id, {"thumbnail_id": list(facts)[-1]})
    if not encoding.keep_original:
        batch.delete({"entity_type": "Component", "entity_key": [encoding.source["id"]]})
