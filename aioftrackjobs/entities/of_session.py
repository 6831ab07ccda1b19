"""EntitiesOfSession: the methods of a session for what studio tools write and look up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from aioftrackjobs.config.settings import require, require_text
from aioftrackjobs.connection import Connection
from aioftrackjobs.entities.arguments import check_owned, list_of_owned
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.paging import fetch_rows
from aioftrackjobs.errors import EntityError, UnknownEntityTypeError
from aioftrackjobs.models import Entity
from aioftrackjobs.protocol.query import bind, select

#: Where a project's schema keeps the statuses and the types of two kinds of entities.
_TASK_STATUSES, _VERSION_STATUSES = "_task_workflow", "_version_workflow"
_TASK_TYPES = "_task_type_schema"


class EntitiesOfSession:
    """What :class:`AsyncSession` does with notes, and with the schemas of projects."""

    _connection: Connection
    _context: EntityContext

    async def create_note(
        self,
        entity: Entity,
        content: str,
        *,
        author: Entity | None = None,
        recipients: Iterable[Entity] = (),
        category: Entity | None = None,
        labels: Iterable[Entity] = (),
    ) -> Entity:
        """Make a note about *entity*, or a reply to a note; the next commit creates it.

        ::

            note = await session.create_note(shot, "Approved.", recipients=[supervisor])
            reply = await session.create_note(note, "Thank you!")
            await session.commit()

        Args:
            entity: What the note is about. If it is a note, the new one is a reply to it.
            content: The text.
            author: The user who writes it; the session's user if None.
            recipients: Users or groups that are notified.
            category: A NoteCategory. Servers that have labels keep it as one of those.
            labels: NoteLabels, if the server has them.

        Raises:
            EntityError: An entity belongs to another session; or the server has no labels.
            NoResultFoundError: There is no *author*, and the session's key belongs to no user.
        """
        self._connection.require_open()
        context = self._context
        check_owned(context, entity)
        require_text("content", content)
        people, wanted = list_of_owned(context, recipients), list_of_owned(context, labels)
        for argument, given in (("author", author), ("category", category)):
            if given is not None:
                check_owned(context, given, argument)
        documents = await context.schemas()
        has_labels = any(each.get("id") == "NoteLabel" for each in documents)
        if wanted and not has_labels:
            raise EntityError("the server has no labels of notes; give it a category")
        user = await context.current_user() if author is None else author
        values: dict[str, Any] = {"content": content, "author": user}
        if entity.entity_type == "Note":
            values["in_reply_to_id"] = entity["id"]
        else:
            values |= {"parent_id": entity["id"], "parent_type": entity.entity_type}
        if category is not None and has_labels:
            wanted = [category, *wanted]
        elif category is not None:
            values["category_id"] = category["id"]
        unit = context.tasks.to_record()  # after the last await, so that all is in one commit
        note = context.create("Note", values, unit=unit)
        for each in people:
            link = {"note_id": note["id"], "resource_id": each["id"]}
            context.create("Recipient", link, unit=unit)
        for each in wanted:
            link = {"note_id": note["id"], "label_id": each["id"]}
            context.create("NoteLabelLink", link, unit=unit)
        return note

    async def statuses(
        self, project: Entity, entity_type: str, *, task_type: Entity | None = None
    ) -> list[Entity]:
        """Return the statuses that *project* has for a type of entities, in their order.

        Example: ``(first, *_) = await session.statuses(project, "Task")``

        Args:
            project: The project, or its ProjectSchema.
            entity_type: ``"Task"``, ``"AssetVersion"``, ``"Shot"`` or another type of objects.
            task_type: The Type of a task, for which the project may have a workflow of its own.

        Raises:
            UnknownEntityTypeError: The server has no such type.
            EntityError: Entities of this type have no statuses in the project.
        """
        schema_id = await self._schema_of(project)
        if entity_type == "AssetVersion":
            return await self._of_schema(schema_id, _VERSION_STATUSES, "statuses")
        if entity_type != "Task":
            return await self._of_objects(schema_id, entity_type, "SchemaStatus", "task_status")
        if task_type is not None:
            check_owned(self._context, task_type, "task_type")
            criteria = bind(
                "project_schema_id is {schema} and type_id is {type}",
                {"schema": schema_id, "type": task_type["id"]},
            )
            names = ["workflow_schema.statuses.name"]
            for each in await self._rows(names, "ProjectSchemaOverride", criteria):
                return list(each["workflow_schema"]["statuses"])
        return await self._of_schema(schema_id, _TASK_STATUSES, "statuses")

    async def types(self, project: Entity, entity_type: str = "Task") -> list[Entity]:
        """Return the types that *project* has for tasks, or for another type of objects.

        Example: ``names = [each["name"] for each in await session.types(project)]``

        Args:
            project: The project, or its ProjectSchema.
            entity_type: ``"Task"``, or another type of objects.

        Raises:
            UnknownEntityTypeError: The server has no such type.
            EntityError: Entities of this type have no types in the project.
        """
        schema_id = await self._schema_of(project)
        if entity_type == "Task":
            return await self._of_schema(schema_id, _TASK_TYPES, "types")
        return await self._of_objects(schema_id, entity_type, "SchemaType", "task_type")

    async def _schema_of(self, project: Entity) -> str:
        self._connection.require_open()
        check_owned(self._context, project, "project")
        kinds = ("Project", "ProjectSchema")
        is_either = project.entity_type in kinds
        require(is_either, "project", "a Project or a ProjectSchema", project)
        if project.entity_type == "ProjectSchema":
            return str(project["id"])
        criteria = bind("id is {id}", {"id": project["id"]})
        (row,) = await self._rows(["project_schema_id"], "Project", criteria)
        return str(row["project_schema_id"])

    async def _rows(
        self, names: Sequence[str], entity_type: str, criteria: str
    ) -> Sequence[Entity]:
        return await fetch_rows(self._context, select(names, entity_type, criteria))

    async def _of_schema(self, schema_id: str, relation: str, name: str) -> list[Entity]:
        criteria = bind("id is {id}", {"id": schema_id})
        names = [f"{relation}.{name}.{each}" for each in ("name", "sort")]
        (row,) = await self._rows(names, "ProjectSchema", criteria)
        return _sorted(row[relation][name] if row[relation] is not None else ())

    async def _of_objects(
        self, schema_id: str, entity_type: str, link: str, relation: str
    ) -> list[Entity]:
        """Return the statuses or types of a type of objects, such as Shot."""
        object_type_id = await self._object_type_of(entity_type)
        criteria = bind(
            "project_schema_id is {schema} and type_id is {type}",
            {"schema": schema_id, "type": object_type_id},
        )
        schemas = await self._rows(["id"], "Schema", criteria) if object_type_id else ()
        if not schemas:
            raise EntityError(f"{entity_type} has no statuses or types in the project")
        criteria = bind("schema_id is {id}", {"id": schemas[0]["id"]})
        names = [f"{relation}.{each}" for each in ("name", "sort")]
        rows = await self._rows(names, link, criteria)
        return _sorted(each[relation] for each in rows)

    async def _object_type_of(self, entity_type: str) -> str | None:
        """Return the id of a type of objects, which the schema has as a default."""
        require_text("entity_type", entity_type)
        documents = {each["id"]: each for each in await self._context.schemas()}
        if entity_type not in documents:
            raise UnknownEntityTypeError(entity_type, documents)
        fragment = documents[entity_type]["properties"].get("object_type_id", {})
        default = fragment.get("default")
        return default if isinstance(default, str) else None


def _sorted(entities: Iterable[Entity]) -> list[Entity]:
    """Return *entities* in the order that the studio gave them, as far as there is one."""
    return sorted(entities, key=lambda each: (each["sort"] is None, each["sort"] or 0))
