"""The entity types that the server knows by itself, as schema documents.

They follow the recorded answer of a real server (protocol reference, section 5), without the
relations to types that are not declared here. Order matters: the schema hash depends on it.
"""

from __future__ import annotations

from aioftrackjobs.devserver.declarations import (
    contexts,
    customization,
    files,
    jobs,
    people,
    publishing,
    reviews,
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
    contexts.MILESTONE,
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
    publishing.NOTE_LABEL,
    reviews.NOTE_LABEL_LINK,
    reviews.NOTE_COMPONENT,
    reviews.RECIPIENT,
    reviews.REVIEW_SESSION,
    reviews.REVIEW_SESSION_OBJECT,
    customization.CUSTOM_ATTRIBUTE_TYPE,
    customization.CUSTOM_ATTRIBUTE_GROUP,
    customization.CUSTOM_ATTRIBUTE_CONFIGURATION,
    customization.CUSTOM_ATTRIBUTE_LINK_CONFIGURATION,
    customization.CUSTOM_ATTRIBUTE_VALUE,
    *customization.VALUES,
    customization.CUSTOM_ATTRIBUTE_LINK,
    customization.CUSTOM_ATTRIBUTE_LINK_FROM,
    *customization.LINKS,
)
