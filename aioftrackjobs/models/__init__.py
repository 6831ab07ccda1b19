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
from aioftrackjobs.models._job import (
    Job,
    JobComponent,
    JobStatus,
    User,
    job_data_text,
    parse_job_data,
)
from aioftrackjobs.models._registry import EntityTypes
from aioftrackjobs.models._state import (
    Change,
    Owner,
    adopt,
    attach,
    change_locally,
    current_value,
    detach,
    forget_local,
    forget_reference,
    load,
    owner_of,
    put_local,
    remote_value,
    settle,
    settle_created,
    settle_late,
    was_created_here,
)
from aioftrackjobs.models._values import new_id, require_relation, store

__all__ = [
    "Change",
    "Collection",
    "Component",
    "ComponentLocation",
    "ContainerComponent",
    "Entity",
    "EntityTypes",
    "FileComponent",
    "Job",
    "JobComponent",
    "JobStatus",
    "Location",
    "Owner",
    "SequenceComponent",
    "User",
    "adopt",
    "attach",
    "change_locally",
    "current_value",
    "detach",
    "forget_local",
    "forget_reference",
    "job_data_text",
    "load",
    "new_id",
    "owner_of",
    "parse_job_data",
    "put_local",
    "remote_value",
    "require_relation",
    "settle",
    "settle_created",
    "settle_late",
    "store",
    "was_created_here",
]
