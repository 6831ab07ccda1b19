"""Entity types for feedback: recipients and labels of notes, and reviews."""

from __future__ import annotations

from aioftrackjobs.devserver.schema.builtin.fragments import (
    THUMBNAIL,
    entity,
    flag,
    key,
    many,
    moment,
    number,
    ref,
    text,
    uid,
    url,
)

NOTE_COMPONENT = entity(
    "NoteComponent",
    {
        "component_id": key("Component.id"),
        "note_id": key("Note.id"),
        "thumbnail_url": url(),
        "url": url(),
        "component": ref("Component"),
        "note": ref("Note"),
    },
    immutable="component_id note_id thumbnail_url url",
    primary_key="component_id note_id",
    computed="thumbnail_url url",
)

NOTE_LABEL_LINK = entity(
    "NoteLabelLink",
    {
        "label_id": key("NoteLabel.id"),
        "note_id": key("Note.id"),
        "label": ref("NoteLabel"),
        "note": ref("Note"),
    },
    primary_key="note_id label_id",
)

RECIPIENT = entity(
    "Recipient",
    {
        "note_id": key("Note.id"),
        "resource_id": key("Resource.id"),
        "text_mentioned": text(),
        "note": ref("Note", alias="recipient_note"),
        "recipient": ref("Resource", alias="recipient_resource"),
        "user": ref("User"),
    },
    primary_key="note_id resource_id",
)

REVIEW_SESSION = entity(
    "ReviewSession",
    {
        "id": uid(),
        "availability": text(),
        "created_at": moment(),
        "created_by_id": key("User.user_id", alias="created_by"),
        "description": text(""),
        "end_date": moment(alias="end"),
        "is_moderated": flag(),
        "is_open": flag(),
        "name": text("New review session"),
        "passphrase": text(),
        "passphrase_enabled": flag(),
        "project_id": key("Project.project_id"),
        "shareable_url_enabled": flag(),
        "start_date": moment(alias="start"),
        **THUMBNAIL,
        "review_session_objects": many("ReviewSessionObject", alias="reviewSessionObjects"),
        "created_by": ref("User", alias="createdBy"),
        "project": ref("Project"),
    },
    required="name description start_date end_date project_id id created_by_id created_at",
    immutable="id thumbnail_id thumbnail_url is_open",
    computed="thumbnail_id thumbnail_url is_open",
)

REVIEW_SESSION_OBJECT = entity(
    "ReviewSessionObject",
    {
        "id": uid(),
        "created_at": moment(),
        "description": text(""),
        "name": text(""),
        "review_session_id": key("ReviewSession.id"),
        "sort_order": number(),
        "version": text(""),
        "version_id": key("AssetVersion.id"),
        "notes": many("Note"),
        "asset_version": ref("AssetVersion", alias="assetVersion"),
        "review_session": ref("ReviewSession", alias="reviewSession"),
    },
    required="name description version version_id review_session_id id created_at sort_order",
    system_projections="review_session_id",
)
