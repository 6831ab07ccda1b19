"""Entity types for people: users, groups, their bookings and the time that they log."""

from __future__ import annotations

from aioftrackjobs.devserver.schema.builtin.fragments import (
    LINKS,
    METADATA_MAP,
    THUMBNAIL,
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
    untyped_key,
)

_RESOURCE = {
    "id": uid(),
    "allocations": many("Appointment", alias="resource_allocations"),
    "appointments": many("Appointment", alias="resource_appointments"),
    "assignments": many("Appointment", alias="resource_assignments"),
}

USER_TYPE = entity(
    "UserType",
    {
        "id": uid(alias="typeid"),
        "name": text(),
    },
    immutable="id name",
)

RESOURCE = entity(
    "Resource",
    {**_RESOURCE, "resource_type": text()},
    required="resource_type id",
    system_projections="resource_type",
)

USER = entity(
    "User",
    {
        **_RESOURCE,
        "email": text(),
        "first_name": text(alias="firstname"),
        "is_active": flag(alias="isactive"),
        "is_otp_enabled": flag(alias="otp_enabled"),
        "is_totp_enabled": flag(alias="totp_enabled"),
        "last_name": text(alias="lastname"),
        "require_details_update": flag(),
        "resource_type": text("user"),
        **THUMBNAIL,
        "user_type_id": untyped_key("UserType.id", alias="typeid"),
        "username": text(),
        **LINKS,
        "custom_attributes": custom_attributes("UserCustomAttributeValue"),
        "memberships": many("Membership", alias="user_memberships"),
        **METADATA_MAP,
        "timelogs": many("Timelog"),
        "user_type": ref("UserType", alias="type"),
    },
    required="username is_active resource_type id",
    immutable="resource_type thumbnail_url id",
    computed="thumbnail_url",
    system_projections="resource_type",
    mixin="Resource",
)

GROUP = entity(
    "Group",
    {
        **_RESOURCE,
        "link": text(alias="api_link"),
        "local": flag(),
        "name": text(""),
        "parent_id": key("Group.id", alias="group_id"),
        "resource_type": text("group"),
        **LINKS,
        "children": many("Group"),
        "memberships": many("Membership", alias="group_memberships"),
        "parent": ref("Group"),
    },
    required="name local resource_type id",
    immutable="resource_type link id",
    system_projections="resource_type",
    mixin="Resource",
)

MEMBERSHIP = entity(
    "Membership",
    {
        "id": uid(),
        "group_id": key("Group.id"),
        "user_id": key("User.id"),
        "group": ref("Group", alias="membership_group"),
        "user": ref("User", alias="membership_user"),
    },
    required="group_id user_id id",
)

APPOINTMENT = entity(
    "Appointment",
    {
        "id": uid(),
        "context_id": key("Context.id"),
        "resource_id": key("Resource.id"),
        "type": text(),
        "context": ref("Context", alias="appointment_context"),
        "resource": ref("Resource", alias="appointment_resource"),
    },
    required="id type resource_id context_id",
)

_TIMED = {
    "id": uid(),
    "comment": text(""),
    "context_id": key("Context.id"),
    "name": text(),
    "start": moment(),
    "context": ref("Context"),
    "user": ref("User"),
}

TIMELOG = entity(
    "Timelog",
    {
        **_TIMED,
        "duration": number(),
        "time_zone_offset": number(),
        "user_id": key("User.id"),
    },
    required="comment start duration id",
    system_projections="user_id context_id",
)

TIMER = entity(
    "Timer",
    {**_TIMED, "user_id": key("User.user_id")},
    required="comment start user_id id",
)
