"""``query``, and ``search``, which is a query narrowed by terms and by a context."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from aioftrackjobs.devserver.api.request import ApiRequest, Operation
from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.entities.loader import load, select
from aioftrackjobs.devserver.limits import Limits
from aioftrackjobs.devserver.query import ast
from aioftrackjobs.devserver.query.compiler import Compiler
from aioftrackjobs.devserver.query.parser import parse
from aioftrackjobs.devserver.schema.model import EntityType
from aioftrackjobs.devserver.schema.values import encode

#: Attributes that are searched for terms; which a real server takes is not known.
_SEARCHED = (
    "name",
    "full_name",
    "username",
    "first_name",
    "last_name",
    "email",
    "label",
    "description",
    "content",
    "comment",
)
#: Terms of a search: more than people write.
_MOST_TERMS = 100
#: Characters of an expression that is parsed before it is the turn of its request.
_LONG = 8 * 1024
#: Attributes that name the context of an entity; the first that its type has counts.
_PLACES = ("context_id", "parent_id", "task_id")


def run_query(request: ApiRequest, operation: Operation) -> dict[str, Any]:
    """Do a ``query``."""
    expression = operation.get("expression")
    query = _parsed(request.services.limits, expression, "A query needs an 'expression'.")
    return {"action": "query", **_found(request, query)}


def run_search(request: ApiRequest, operation: Operation) -> dict[str, Any]:
    """Do a ``search``: find entities in which every term occurs in some text."""
    query = _searched_query(request, operation)
    entity_type = request.services.model.type(query.entity_type)
    narrowed = [query.criteria] if query.criteria is not None else []
    terms = _texts(operation, "terms")
    if len(terms) > _MOST_TERMS:
        raise ValidationError(f"A search takes {_MOST_TERMS} terms at most, not {len(terms)}.")
    narrowed += [_term(entity_type, term) for term in terms]
    narrowed += _within(request, entity_type, operation)
    object_types = _texts(operation, "object_type_ids")
    if object_types:
        narrowed.append(_one_of(entity_type, "object_type_id", object_types))
    if narrowed:
        query = replace(query, criteria=ast.And(tuple(narrowed)))
    return {"action": "search", **_found(request, query)}


def parsed_early(limits: Limits, operation: Any) -> Any:
    """Return *operation*, a long query in it parsed, which takes long and needs no database."""
    expression = operation.get("expression")
    if not isinstance(expression, str) or len(expression) < _LONG:
        return operation
    limits.check_expression(expression)
    return {**operation, "expression": parse(expression)}


def _parsed(limits: Limits, expression: object, otherwise: str) -> ast.Query:
    """Return the syntax tree of an expression that may be parsed already; else an error."""
    if isinstance(expression, ast.Query):
        return expression
    if not isinstance(expression, str):
        raise ValidationError(otherwise)
    limits.check_expression(expression)
    return parse(expression)


def _searched_query(request: ApiRequest, operation: Operation) -> ast.Query:
    expression, name = operation.get("expression"), operation.get("entity_type")
    if name is not None and not isinstance(name, str):
        raise ValidationError("'entity_type' must be a name.")
    if expression is None and name:
        return ast.Query(request.services.model.type(name).name)
    needed = "A search needs an 'expression' or an 'entity_type'."
    query = _parsed(request.services.limits, expression, needed)
    if name and query.entity_type != name:
        raise ValidationError(f"'expression' is about {query.entity_type}, not about {name}.")
    if query.group_by:
        raise ValidationError("A search cannot group.")
    return query


def _texts(operation: Operation, name: str) -> list[str]:
    values = operation.get(name)
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValidationError(f"'{name}' must be a list of texts.")
    return values


def _term(entity_type: EntityType, term: str) -> ast.Expression:
    """Return the criteria for entities that have *term* in any of their texts."""
    escaped = "".join(f"\\{each}" if each in "\\%\"'" else each for each in term)
    pattern = ast.Literal(f"%{escaped}%", quoted=True)
    tests = tuple(
        ast.Comparison((ast.Step(name),), "like", pattern)
        for name in _SEARCHED
        if name in entity_type.attributes and entity_type.attributes[name].type == "string"
    )
    if not tests:
        raise ValidationError(f"{entity_type.name} has no text to search.")
    return ast.Or(tests)


def _one_of(entity_type: EntityType, name: str, values: list[str]) -> ast.Expression:
    if name not in entity_type.attributes:
        raise entity_type.unknown(name)
    literals = tuple(ast.Literal(value, quoted=False) for value in values)
    return ast.Membership((ast.Step(name),), literals, negated=False)


def _within(
    request: ApiRequest, entity_type: EntityType, operation: Operation
) -> Iterator[ast.Expression]:
    """Yield the criteria for entities below a context, if one is given."""
    context_id = operation.get("context_id")
    if context_id is None:
        return
    if not isinstance(context_id, str):
        raise ValidationError("'context_id' must be a context's id.")
    contexts = _descendants(request, context_id)
    if "Context" in entity_type.lineage:
        yield _one_of(entity_type, "id", contexts)
        return
    places = [name for name in _PLACES if name in entity_type.attributes]
    if not places:
        raise ValidationError(f"{entity_type.name} is in no context; leave out 'context_id'.")
    yield _one_of(entity_type, places[0], contexts)


def _descendants(request: ApiRequest, context_id: str) -> list[str]:
    context = request.services.model.types.get("Context")
    table = request.transaction.tables[context.root] if context is not None else None
    if table is None or "parent_id" not in table.c:
        return [context_id]
    start = sa.select(sa.bindparam("start", type_=sa.Text).label("id"))
    tree = start.cte("tree", recursive=True)
    tree = tree.union(sa.select(table.c.id).where(table.c.parent_id == tree.c.id))
    return [row[0] for row in request.transaction.fetch(sa.select(tree.c.id), start=context_id)]


def _found(request: ApiRequest, query: ast.Query) -> dict[str, Any]:
    rows, more = _groups(request, query) if query.group_by else _entities(request, query)
    next_offset = (query.offset or 0) + len(rows) if more else None
    return {"data": rows, "metadata": {"next": {"offset": next_offset}}}


def _entities(request: ApiRequest, query: ast.Query) -> tuple[list[Any], bool]:
    model, transaction = request.services.model, request.transaction
    selection = select(model, query)
    columns = selection.columns(model)
    compiler = Compiler(model, transaction.tables, transaction.clock)
    found, more = _page(request, query, compiler.select(query, columns))
    rows = [dict(zip(columns, row, strict=True)) for row in found]
    load(model, transaction, selection, rows)
    return [request.serializer.entity(selection, row) for row in rows], more


def _groups(request: ApiRequest, query: ast.Query) -> tuple[list[Any], bool]:
    if not request.caller.strict:
        raise ValidationError(
            "'group by' needs strict mode: send the header 'ftrack-api-options: strict:1'."
        )
    tables, clock = request.transaction.tables, request.transaction.clock
    compiler = Compiler(request.services.model, tables, clock)
    statement, attributes = compiler.select_groups(query)
    found, more = _page(request, query, statement)
    groups = [zip(attributes.items(), row, strict=True) for row in found]
    return [{name: encode(of, value) for (name, of), value in group} for group in groups], more


def _page(request: ApiRequest, query: ast.Query, statement: sa.Select[Any]) -> tuple[Any, bool]:
    found = request.transaction.fetch(statement)
    if query.limit is None or len(found) <= query.limit:
        return found, False
    return found[: query.limit], True
