"""Entity types for Jobs, and the two key and value stores: metadata and settings."""

from __future__ import annotations

from aioftrackjobs.devserver.schema.builtin.fragments import (
    PARENT_TYPE_TRANSFORM,
    entity,
    json_text,
    key,
    many,
    moment,
    ref,
    text,
    uid,
    url,
)

JOB = entity(
    "Job",
    {
        "id": uid(alias="jobid"),
        "created_at": moment(),
        "data": json_text(),
        "finished_at": moment(),
        "status": text("queued", enum=["queued", "running", "done", "failed"]),
        "type": text("api_job"),
        "user_id": key("User.user_id", alias="userid"),
        "job_components": many("JobComponent"),
        "user": ref("User"),
    },
    required="id status type",
    immutable="id type",
)

JOB_COMPONENT = entity(
    "JobComponent",
    {
        "component_id": key("Component.id"),
        "job_id": key("Job.id"),
        "url": url(),
        "component": ref("Component"),
        "job": ref("Job"),
    },
    immutable="component_id job_id url",
    primary_key="component_id job_id",
    computed="url",
)

EVENT = entity(
    "Event",
    {
        "id": {"type": "integer", "alias_for": "socialid"},
        "action": text(alias="action"),
        "created_at": moment(),
        "data": json_text(),
        "insert": text(alias="insert"),
        "parent_id": text(),
        "parent_type": text(),
        "project_id": key("Project.id", alias="showid"),
        "user_id": key("User.user_id", alias="userid"),
        "project": ref("Project", alias="show"),
        "user": ref("User"),
    },
    required="id",
    immutable="id",
    alias="SocialEvent",
)

SETTING = entity(
    "Setting",
    {
        "group": text("default"),
        "name": text("default"),
        "value": text("default"),
    },
    primary_key="name group",
)

METADATA = entity(
    "Metadata",
    {
        "key": text(alias="variable"),
        "parent_id": text(alias="meta_id"),
        "parent_type": {**text(alias="meta_type"), "transform": PARENT_TYPE_TRANSFORM},
        "value": text(),
    },
    required="parent_id key value parent_type",
    primary_key="parent_id key",
    default_projections="parent_id key value parent_type",
    alias="Meta",
)
