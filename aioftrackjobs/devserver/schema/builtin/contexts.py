"""Entity types for contexts: projects and the typed contexts below them."""

from __future__ import annotations

from aioftrackjobs.devserver.schema.builtin.fragments import (
    LINKS,
    METADATA_MAP,
    THUMBNAIL,
    Document,
    custom_attributes,
    entity,
    flag,
    key,
    many,
    moment,
    number,
    ref,
    text,
    uid,
)

#: Every ftrack server has this priority, named "None".
PRIORITY_NONE = "9661b320-3a0c-11e2-81c1-0800200c9a66"

_CONTEXT_FIXED = "id _link link thumbnail_url created_by_id created_by created_at"
_TYPED_CONTEXT_FIXED = _CONTEXT_FIXED + " time_logged bid_time_logged_difference"
_SCHEDULE = " type_id type bid start_date end_date"

_CONTEXT = {
    "id": uid(),
    "context_type": text(),
    "created_at": moment(),
    "created_by_id": key("User.user_id", alias="created_by"),
    "_link": text(alias="_api_link"),
    "link": text(alias="_api_link"),
    "name": text(""),
    "parent_id": key("Context.id"),
    **THUMBNAIL,
    "allocations": many("Appointment", alias="context_allocations"),
    "appointments": many("Appointment", alias="context_appointments"),
    "assets": many("Asset"),
    "assignments": many("Appointment", alias="context_assignments"),
    "children": many("Context"),
    **LINKS,
    "custom_attributes": custom_attributes("ContextCustomAttributeValue"),
    "notes": many("Note"),
    "timelogs": many("Timelog"),
    "created_by": ref("User", alias="createdBy"),
    "parent": ref("Context"),
}

CONTEXT = entity(
    "Context",
    {**_CONTEXT, "project_id": key("Project.id")},
    required="context_type id name",
    immutable=_CONTEXT_FIXED,
    default_projections="context_type id name",
    computed="thumbnail_url",
    system_projections="context_type",
)

PROJECT = entity(
    "Project",
    {
        **_CONTEXT,
        "color": text(),
        "end_date": moment(alias="enddate"),
        "full_name": text(alias="fullname"),
        "is_global": flag(default=False, alias="isglobal"),
        "is_private": flag(default=False, alias="private"),
        "project_id": key("Project.id"),
        "project_schema_id": key("ProjectSchema.id", alias="projectschemeid"),
        "root": text(),
        "start_date": moment(alias="startdate"),
        "status": text(),
        "descendants": many("TypedContext"),
        **METADATA_MAP,
        "review_sessions": many("ReviewSession", alias="reviewSessions"),
        "project_schema": ref("ProjectSchema", alias="projectscheme"),
    },
    required="is_global status project_schema_id context_type id name",
    immutable=_CONTEXT_FIXED,
    default_projections="context_type id name",
    computed="thumbnail_url",
    system_projections="context_type",
    alias="Show",
    mixin="Context",
)

_TYPED_CONTEXT = {
    **_CONTEXT,
    "bid": number(),
    "bid_time_logged_difference": number(),
    "description": text(),
    "end_date": moment(alias="enddate"),
    "project_id": key("Project.id", alias="showid"),
    "sort": number(),
    "start_date": moment(alias="startdate"),
    "status_id": key("Status.id", alias="statusid"),
    "time_logged": number(),
    "type_id": key("Type.id", alias="typeid"),
    "ancestors": many("TypedContext"),
    "descendants": many("TypedContext"),
    **METADATA_MAP,
    "object_type": ref("ObjectType", alias="objectType"),
    "priority": ref("Priority"),
    "project": ref("Project", alias="show"),
    "status": ref("Status"),
    "type": ref("Type"),
}

_TYPED_CONTEXT_LISTS = {
    "required": "bid status_id type_id priority_id object_type_id sort context_type id name",
    "default_projections": "context_type id name",
    "computed": "time_logged bid_time_logged_difference thumbnail_url",
    "system_projections": "showid context_type",
}

TYPED_CONTEXT = entity(
    "TypedContext",
    {
        **_TYPED_CONTEXT,
        "object_type_id": key("ObjectType.id", alias="object_typeid"),
        "priority_id": key("Priority.id", alias="priorityid"),
    },
    immutable=_TYPED_CONTEXT_FIXED,
    alias="Task",
    mixin="Context",
    **_TYPED_CONTEXT_LISTS,
)


def _typed_context(name: str, object_type_id: str, fixed: str = "") -> Document:
    """Return a typed context; *fixed* names what an object of this kind cannot change.

    The ids of the object types are those every ftrack server is delivered with.
    """
    return entity(
        name,
        {
            **_TYPED_CONTEXT,
            "object_type_id": key("ObjectType.id", default=object_type_id, alias="object_typeid"),
            "priority_id": key("Priority.id", default=PRIORITY_NONE, alias="priorityid"),
        },
        immutable=_TYPED_CONTEXT_FIXED + " object_type_id object_type" + fixed,
        alias={"id": "Task", "classifiers": {"object_typeid": object_type_id}},
        mixin="TypedContext",
        **_TYPED_CONTEXT_LISTS,
    )


TASK = _typed_context("Task", "11c137c0-ee7e-4f9c-91c5-8c77cec22b2c")
SHOT = _typed_context("Shot", "bad911de-3bd6-47b9-8b46-3476e237cb36", _SCHEDULE)
SEQUENCE = _typed_context(
    "Sequence", "e5139355-61da-4c8f-9db4-3abc870166bc", _SCHEDULE + " status_id status"
)
FOLDER = _typed_context(
    "Folder", "3c133785-51cb-11e3-980a-20c9d0831e59", _SCHEDULE + " status_id status"
)
MILESTONE = _typed_context("Milestone", "01decdd1-51cb-11e3-9d5b-20c9d0831e59", " start_date")
