"""Entity types for the vocabulary of a studio: statuses, types, priorities and object types."""

from __future__ import annotations

from aioftrackjobs.devserver.schema.builtin.fragments import (
    entity,
    flag,
    integer,
    many,
    number,
    ref,
    text,
    uid,
)

STATUS = entity(
    "Status",
    {
        "id": uid(alias="statusid"),
        "color": text(),
        "is_active": flag(alias="isactive"),
        "name": text(),
        "sort": integer(0),
        "tasks": many("Task"),
        "state": ref("State", alias="statustype"),
    },
    required="id is_active",
    alias="TaskStatus",
)

STATE = entity(
    "State",
    {
        "id": uid(alias="typeid"),
        "name": text(),
        "short": text(),
    },
    alias="StatusType",
)

TYPE = entity(
    "Type",
    {
        "id": uid(alias="typeid"),
        "color": text("#510100"),
        "is_billable": flag(default=True, alias="isbillable"),
        "name": text(),
        "sort": integer(0),
        "tasks": many("Task"),
    },
    required="id color sort is_billable",
    alias="TaskType",
)

PRIORITY = entity(
    "Priority",
    {
        "id": uid(alias="priorityid"),
        "color": text(),
        "name": text(),
        "sort": integer(0),
        "value": number(0),
        "tasks": many("Task"),
    },
    alias="PriorityType",
)

OBJECT_TYPE = entity(
    "ObjectType",
    {
        "id": uid(alias="typeid"),
        "icon": text("default"),
        "is_leaf": flag(default=False, alias="isleaf"),
        "is_schedulable": flag(default=False, alias="isschedulable"),
        "is_statusable": flag(default=True, alias="isstatusable"),
        "is_taskable": flag(default=True, alias="istaskable"),
        "is_time_reportable": flag(default=False, alias="istimereportable"),
        "is_typeable": flag(default=True, alias="istypeable"),
        "name": text(),
        "sort": integer(0),
        "project_schemas": many("ProjectSchema"),
        "tasks": many("Task"),
    },
    required="id name icon sort is_time_reportable is_taskable is_typeable is_statusable "
    "is_schedulable",
)
