"""Entity types for published work: assets, their versions, and notes."""

from __future__ import annotations

from aioftrackjobs.devserver.schema.builtin.fragments import (
    LINKS,
    METADATA_MAP,
    PARENT_TYPE_TRANSFORM,
    THUMBNAIL,
    Document,
    custom_attributes,
    entity,
    flag,
    integer,
    key,
    many,
    moment,
    ref,
    text,
    uid,
)

ASSET = entity(
    "Asset",
    {
        "id": uid(alias="assetid"),
        "context_id": key("Context.id"),
        "name": text(),
        "type_id": key("AssetType.id", alias="typeid"),
        **LINKS,
        "custom_attributes": custom_attributes("AssetCustomAttributeValue"),
        **METADATA_MAP,
        "versions": many("AssetVersion"),
        "latest_version": ref("AssetVersion"),
        "parent": ref("Context"),
        "type": ref("AssetType"),
    },
    computed="latest_version",
    system_projections="context_id",
)

ASSET_TYPE = entity(
    "AssetType",
    {
        "id": uid(alias="typeid"),
        "component": text("main"),
        "name": text(),
        "short": text(),
        "assets": many("Asset"),
    },
    required="id name short",
)

ASSET_VERSION = entity(
    "AssetVersion",
    {
        "id": uid(alias="versionid"),
        "asset_id": key("Asset.id", alias="assetid"),
        "comment": text(""),
        "date": moment(),
        "is_latest_version": flag(),
        "is_published": flag(default=True, alias="ispublished"),
        "_link": text(alias="_api_link"),
        "link": text(alias="_api_link"),
        "status_id": key("Status.id", alias="statusid"),
        "task_id": key("Task.id", alias="taskid"),
        **THUMBNAIL,
        "user_id": key("User.user_id", alias="userid"),
        "version": integer(),
        "components": many("Component"),
        **LINKS,
        "custom_attributes": custom_attributes("AssetVersionCustomAttributeValue"),
        **METADATA_MAP,
        "notes": many("Note"),
        "review_session_objects": many("ReviewSessionObject", alias="reviewSessionObjects"),
        "asset": ref("Asset"),
        "status": ref("Status"),
        "task": ref("Task"),
        "user": ref("User"),
    },
    required="id is_published status_id",
    immutable="id _link link is_latest_version thumbnail_url",
    computed="thumbnail_url",
    system_projections="assetid",
)

NOTE = entity(
    "Note",
    {
        "id": uid(alias="noteid"),
        "category_id": key("NoteCategory.id", alias="categoryid"),
        "completed_at": moment(),
        "completed_by_id": key("User.user_id"),
        "content": text(alias="text"),
        "date": moment(),
        "in_reply_to_id": key("Note.id", alias="noteparentid"),
        "is_todo": flag(default=False),
        "parent_id": text(),
        "parent_type": {**text(), "transform": PARENT_TYPE_TRANSFORM},
        "thread_activity": moment(alias="triggerdate"),
        "user_id": key("User.user_id", alias="userid"),
        **METADATA_MAP,
        "note_components": many("NoteComponent"),
        "note_label_links": many("NoteLabelLink"),
        "recipients": many("Recipient", alias="note_recipients"),
        "replies": many("Note", alias="notes"),
        "author": ref("User", alias="user"),
        "category": ref("NoteCategory"),
        "completed_by": ref("User"),
        "in_reply_to": ref("Note", alias="noteparent"),
    },
    required="id user_id",
)


def _label(name: str) -> Document:
    """Return one of the two names under which servers show the labels of notes."""
    return entity(
        name,
        {
            "id": uid(alias="categoryid"),
            "color": text(),
            "name": text(),
            "sort": integer(0),
        },
        alias="NoteCategory",
    )


NOTE_CATEGORY, NOTE_LABEL = _label("NoteCategory"), _label("NoteLabel")
