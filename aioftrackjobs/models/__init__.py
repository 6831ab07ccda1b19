"""Entities: typed models for what Jobs need, and generic ones for every other entity type."""

from aioftrackjobs.models._collection import Collection
from aioftrackjobs.models._component import (
    Component,
    ComponentLocation,
    ContainerComponent,
    FileComponent,
    Location,
    SequenceComponent,
)
from aioftrackjobs.models._entity import Entity
from aioftrackjobs.models._html import bar_html, rows_html
from aioftrackjobs.models._job import (
    Job,
    JobComponent,
    JobState,
    JobStatus,
    User,
    job_data_text,
    known_state,
    parse_job_data,
    state_in,
)
from aioftrackjobs.models._mappings import CustomAttributeValues, MetadataValues
from aioftrackjobs.models._registry import EntityTypes
from aioftrackjobs.models._rows import RowPlan
from aioftrackjobs.models._state import (
    Change,
    Owner,
    adopt,
    change_locally,
    current_value,
    detach,
    forget_local,
    forget_reference,
    owner_of,
    put_local,
    remote_value,
    settle,
    settle_created,
    settle_late,
    was_created_here,
)
from aioftrackjobs.models._values import Related, new_id, require_relation, store

__all__ = [
    "Change",
    "Collection",
    "Component",
    "ComponentLocation",
    "ContainerComponent",
    "CustomAttributeValues",
    "Entity",
    "EntityTypes",
    "FileComponent",
    "Job",
    "JobComponent",
    "JobState",
    "JobStatus",
    "Location",
    "MetadataValues",
    "Owner",
    "Related",
    "RowPlan",
    "SequenceComponent",
    "User",
    "adopt",
    "bar_html",
    "change_locally",
    "current_value",
    "detach",
    "forget_local",
    "forget_reference",
    "job_data_text",
    "known_state",
    "new_id",
    "owner_of",
    "parse_job_data",
    "put_local",
    "remote_value",
    "require_relation",
    "rows_html",
    "settle",
    "settle_created",
    "settle_late",
    "state_in",
    "store",
    "was_created_here",
]
