"""Entity types for workflows: the statuses and types that entities of a project may have.

The official client's ``ProjectSchema.get_statuses`` and ``get_types`` read them. Some things
have two names there, an older one that begins with an underscore.
"""

from __future__ import annotations

from aioftrackjobs.devserver.schema.builtin.fragments import (
    Document,
    Fragment,
    entity,
    integer,
    key,
    many,
    ref,
    text,
    uid,
)

PROJECT_SCHEMA = entity(
    "ProjectSchema",
    {
        "id": uid(alias="schemeid"),
        "asset_version_workflow_schema_id": key("WorkflowSchema.id", alias="versionworkflowid"),
        "name": text(),
        "task_type_schema_id": key("TaskTypeSchema.id", alias="tasktypeschemeid"),
        "task_workflow_schema_id": key("WorkflowSchema.id", alias="taskworkflowid"),
        "_overrides": many("ProjectSchemaOverride", alias="overrides"),
        "_schemas": many("Schema", alias="schemas"),
        "object_type_schemas": many("Schema", alias="schemas"),
        "object_types": many("ObjectType"),
        "task_workflow_schema_overrides": many("ProjectSchemaOverride", alias="overrides"),
        "_task_type_schema": ref("TaskTypeSchema", alias="tasktypescheme"),
        "_task_workflow": ref("WorkflowSchema", alias="taskworkflow"),
        "_version_workflow": ref("WorkflowSchema", alias="versionworkflow"),
        "asset_version_workflow_schema": ref("WorkflowSchema", alias="versionworkflow"),
        "task_type_schema": ref("TaskTypeSchema", alias="tasktypescheme"),
        "task_workflow_schema": ref("WorkflowSchema", alias="taskworkflow"),
    },
    alias="ProjectScheme",
)

WORKFLOW_SCHEMA = entity(
    "WorkflowSchema",
    {
        "id": uid(alias="schemeid"),
        "name": text("Workflow Name"),
        "overrides": many("ProjectSchemaOverride"),
        "statuses": many("Status"),
    },
    alias="WorkflowScheme",
)

TASK_TYPE_SCHEMA = entity(
    "TaskTypeSchema",
    {
        "id": uid(alias="schemeid"),
        "name": text("TaskType Schema Name"),
        "types": many("Type"),
    },
    alias="TaskTypeScheme",
)

PROJECT_SCHEMA_OVERRIDE = entity(
    "ProjectSchemaOverride",
    {
        "id": uid(alias="overrideid"),
        "project_schema_id": key("ProjectSchema.id", alias="projectschemeid"),
        "type_id": key("Type.id", alias="typeid"),
        "workflow_schema_id": key("WorkflowSchema.id", alias="workflowschemeid"),
        "workflow_schema": ref("WorkflowSchema", alias="workflowscheme"),
    },
    alias="ProjectSchemeOverride",
)

SCHEMA = entity(
    "Schema",
    {
        "id": uid(),
        "object_type_id": key("ObjectType.id", alias="typeid"),
        "project_schema_id": key("ProjectSchema.id", alias="projectschemeid"),
        "type_id": key("ObjectType.id", alias="typeid"),
        "statuses": many("SchemaStatus"),
        "types": many("SchemaType"),
    },
    required="id type_id project_schema_id",
)


def _joining(name: str, keys: str, properties: dict[str, Fragment]) -> Document:
    """Return a type whose entities join two others, and have the keys of both as their own."""
    return entity(
        name, properties, required=keys, immutable=keys, primary_key=keys, default_projections=keys
    )


SCHEMA_STATUS = _joining(
    "SchemaStatus",
    "status_id schema_id",
    {
        "schema_id": key("Schema.id", alias="schemaid"),
        "sort": integer(0),
        "status_id": key("Status.id", alias="statusid"),
        "task_status": ref("Status", alias="taskstatus"),
    },
)
SCHEMA_TYPE = _joining(
    "SchemaType",
    "type_id schema_id",
    {
        "schema_id": key("Schema.id", alias="schemaid"),
        "sort": integer(0),
        "type_id": key("Type.id", alias="typeid"),
        "task_type": ref("Type", alias="tasktype"),
    },
)
WORKFLOW_SCHEMA_STATUS = _joining(
    "WorkflowSchemaStatus",
    "workflow_schema_id status_id",
    {
        "status_id": key("Status.id", alias="statusid"),
        "workflow_schema_id": key("WorkflowSchema.id", alias="schemeid"),
    },
)
TASK_TYPE_SCHEMA_TYPE = _joining(
    "TaskTypeSchemaType",
    "task_type_schema_id type_id",
    {
        "task_type_schema_id": key("TaskTypeSchema.id", alias="schemeid"),
        "type_id": key("Type.id", alias="typeid"),
    },
)
PROJECT_SCHEMA_OBJECT_TYPE = _joining(
    "ProjectSchemaObjectType",
    "object_type_id project_schema_id",
    {
        "object_type_id": key("ObjectType.id"),
        "project_schema_id": key("ProjectSchema.id"),
        "object_type": ref("ObjectType"),
        "project_schema": ref("ProjectSchema"),
    },
)
