"""Thumbnails of entities, and media that ftrack encodes for the browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.queries import fetch_entity, key_reference
from aioftrackjobs.errors import FtrackJobsError, MalformedResponseError
from aioftrackjobs.models import Entity, FileComponent, Job
from aioftrackjobs.transfers.content import Uploadable
from aioftrackjobs.transfers.upload import upload

logger: SafeLogger = SafeLogger(__name__)


async def create_thumbnail(
    context: EntityContext,
    entity: Entity,
    source: Uploadable,
    *,
    data: Mapping[str, Any],
    name: str | None,
) -> FileComponent:
    """Upload *source*, and make it the thumbnail of *entity* in the commit that registers it."""

    def use(unit: UnitOfWork, component: FileComponent) -> list[Entity]:
        unit.set(entity, thumbnail_id=component.id)
        return []

    await context.require_created(entity.__ftrack_reference__())
    return await upload(context, source, data={"name": "thumbnail", **data}, name=name, links=use)


async def encode_media(
    context: EntityContext,
    media: Entity | Uploadable,
    *,
    version: Entity | None,
    keep_original: bool | None,
    name: str | None,
) -> Job:
    """Ask the server to encode *media*, which is uploaded if it is no component; return the Job.

    Source:
        docs/protocol.md, section 2.6.
    """
    if version is not None:
        await context.require_created(version.__ftrack_reference__())
    if isinstance(media, Entity):
        component, is_own = media, False
        await context.require_created(media.__ftrack_reference__())
    else:
        component, is_own = await upload(context, media, data={}, name=name), True
    operation: dict[str, Any] = {
        "action": "encode_media",
        "component_id": component["id"],
        "version_id": None if version is None else version["id"],
        "keep_original": not is_own if keep_original is None else keep_original,
    }
    try:
        (result,) = await context.call([operation])
    except FtrackJobsError:
        if is_own:
            await _delete(context, component)
        raise
    job_id = result.get("job_id") if isinstance(result, Mapping) else None
    if not isinstance(job_id, str):
        raise MalformedResponseError("the response to encode_media names no Job", status=200)
    job = await fetch_entity(context, key_reference(Job, job_id))
    if not isinstance(job, Job):
        raise MalformedResponseError(f"the server has no Job {job_id}, which it named", status=200)
    return job


async def _delete(context: EntityContext, component: Entity) -> None:
    """Delete a component that was uploaded in vain."""
    unit = context.new_unit()
    unit.record_delete(component)
    try:
        await unit.commit()
    except FtrackJobsError as exc:
        logger.warning(
            "%(component)r was uploaded to be encoded, and stays: %(error)s",
            component=component,
            error=exc,
        )
