"""Operations for uploads: announcing them, and completing those in parts."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from aioftrackjobs.devserver.api.request import ApiRequest, Completion, Operation, Services, text_of
from aioftrackjobs.devserver.api_errors import MissingPartError, ValidationError
from aioftrackjobs.devserver.files.storage import IncomingFile
from aioftrackjobs.devserver.files.upload_tokens import AnnouncedUpload

COMPLETE = "complete_multipart_upload"


def get_upload_metadata(request: ApiRequest, operation: Operation) -> dict[str, Any]:
    """Do ``get_upload_metadata``; the component need not exist yet."""
    component = request.row("Component", operation.get("component_id"))
    base_url = request.caller.base_url
    return request.services.uploads.announce(operation, component, base_url)


def assemble_uploads(
    services: Services, operations: Iterable[Operation], completions: dict[str, Completion]
) -> None:
    """Add to *completions* all uploads that *operations* complete, by upload id.

    This takes as long as copying the files, so it is done before the transaction begins. An
    upload that was completed before has no file: its client did not receive the response.
    """
    for operation in operations:
        if operation.get("action") != COMPLETE:
            continue
        upload_id = text_of(operation, "upload_id")
        announced = services.uploads.decode(upload_id, "upload")
        if operation.get("component_id") != announced.component_id:
            raise ValidationError("'component_id' is not the one the upload was announced for.")
        if upload_id in completions:
            raise ValidationError("The upload is completed twice.")
        file: IncomingFile | None = None
        try:
            file = services.parts.assemble(announced, operation.get("parts"))
        except MissingPartError:
            if not _is_completed(services, announced):
                raise
        completions[upload_id] = Completion(announced, file)


def _is_completed(services: Services, announced: AnnouncedUpload) -> bool:
    """Return whether the upload was completed, and the component's file is still that one."""
    assert announced.upload is not None  # noqa: S101 - only those in parts are completed
    with services.store.transaction(writes=False) as transaction:
        if not transaction.is_completed(announced.upload):
            return False
    return services.parts.is_whole(announced)


def complete_multipart_upload(request: ApiRequest, operation: Operation) -> dict[str, Any]:
    """Do ``complete_multipart_upload``; the file is in place when the batch is done.

    It is put there as the last step before the commit: a server that is killed in between leaves
    a file without rows, never rows without their file.
    """
    services, completion = request.services, request.completions[operation["upload_id"]]
    announced = completion.announced
    if completion.file is not None:
        request.files_to_place.append(completion.file)
        upload = str(announced.upload)
        request.transaction.complete(upload)
        request.after_commit.append(partial(services.parts.discard, upload))
    return {
        "action": COMPLETE,
        "component_id": announced.component_id,
        "url": request.file_urls.address("get", announced.component_id),
    }
