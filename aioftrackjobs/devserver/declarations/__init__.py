"""The entity types that the server knows by itself, as schema documents.

They follow the recorded answer of a real server (protocol reference, section 5), without the
relations to types that are not declared here. Order matters: the schema hash depends on it.
"""

from __future__ import annotations

from aioftrackjobs.devserver.declarations import (
    contexts,
    files,
    jobs,
    people,
    publishing,
    vocabulary,
)
from aioftrackjobs.devserver.declarations.language import Document

__all__ = ["BUILTIN_SCHEMAS", "Document"]

BUILTIN_SCHEMAS: tuple[Document, ...] = (
    jobs.JOB,
    jobs.JOB_COMPONENT,
    jobs.SETTING,
    jobs.METADATA,
    files.COMPONENT,
    files.FILE_COMPONENT,
    files.CONTAINER_COMPONENT,
    files.SEQUENCE_COMPONENT,
    files.COMPONENT_LOCATION,
    files.LOCATION,
    people.RESOURCE,
    people.USER,
    people.USER_TYPE,
    people.GROUP,
    people.MEMBERSHIP,
    people.APPOINTMENT,
    people.TIMELOG,
    people.TIMER,
    contexts.CONTEXT,
    contexts.PROJECT,
    contexts.PROJECT_SCHEMA,
    contexts.TYPED_CONTEXT,
    contexts.TASK,
    contexts.SHOT,
    contexts.SEQUENCE,
    contexts.FOLDER,
    vocabulary.STATUS,
    vocabulary.STATE,
    vocabulary.TYPE,
    vocabulary.PRIORITY,
    vocabulary.OBJECT_TYPE,
    publishing.ASSET,
    publishing.ASSET_TYPE,
    publishing.ASSET_VERSION,
    publishing.NOTE,
    publishing.NOTE_CATEGORY,
)
