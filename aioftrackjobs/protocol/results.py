"""Which operation a result belongs to: results that belong to others must not count as an answer.

A proxy, a cache or a defect of a server may answer with the response to another request, with a
result twice, or with none. Such a response is valid JSON of the right length. But the result of a
write names its action and the key of its entity, and most other results say what they are about.

What a real server may answer is not refused: a row of a subtype (a ``Shot`` for a
``TypedContext``), more attributes than were sent, or a key in another case. The result of a delete
is ``true`` alone, so that the result of another delete cannot be told from it.

Source:
    docs/protocol.md, sections 2.3, 2.4, 3.5, 3.6, 4.6, 4.9 and 6.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, cast

from aioftrackjobs.protocol.operations import Create, Delete, Operation, Update
from aioftrackjobs.protocol.values import ENTITY_TYPE, JSONValue

#: An operation as an object, or in its wire form.
AnyOperation: TypeAlias = "Operation | Mapping[str, JSONValue]"

#: Operations whose result contains a row, by their action.
_WITH_ROW: Mapping[str, type[Operation]] = {"create": Create, "update": Update}

#: Types without subtypes, so that each row says this very type.
_CONCRETE_TYPES = frozenset(
    {
        "ComponentLocation",
        "ContainerComponent",
        "FileComponent",
        "Job",
        "JobComponent",
        "SequenceComponent",
        "User",
    }
)

#: The whole criteria of a query by ids, which cannot find an entity with another id.
_QUERY_OF_IDS = (  # a text, which re compiles when it first needs it: importing takes no time
    r'\swhere id in \(("[^"\\]*"(?:, ?"[^"\\]*")*)\)(?:\s+(?:offset|limit) \d+)*\s*$'
)

_QUERY_TARGET = r"(?s)\s*(?:select\s.*?\sfrom\s+)?(\w+)"


def first_problem(operations: Sequence[AnyOperation], results: Sequence[Any]) -> str | None:
    """Return what is wrong with the first of *results* that is none of its operation.

    Args:
        operations: What was sent, in its order.
        results: As many results.

    Returns:
        A text for an error; None if each result may be that of its operation.
    """
    if not operations:
        return None
    if isinstance(operations[0], Mapping):
        find: Callable[[Any, Any], str | None] = _problem_of_call
    else:
        with suppress(LookupError, TypeError):
            # What nearly all results are, in one expression: a farm has many of them.
            writes = cast("Sequence[Operation]", operations)
            sent = [(type(each), each.target) for each in writes]
            if sent == [
                (_WITH_ROW[each["action"]], (row[ENTITY_TYPE], (("id", row["id"]),)))
                for each in results
                for row in (each["data"],)
            ]:
                return None
        find = _problem_of_write
    for index, operation in enumerate(operations):
        if (problem := find(operation, results[index])) is not None:
            return f"result {index + 1} of {len(results)} is {problem}"
    return None


def _problem_of_write(operation: Operation, result: Any) -> str | None:
    if _is_of_write(operation, result):
        return None
    return f"not that of the {operation.action} of {operation.target}"


def _problem_of_call(operation: Mapping[str, JSONValue], result: Any) -> str | None:
    action = operation.get("action")
    return None if _is_of_call(action, operation, result) else f"not that of a {action}"


def _is_of_write(operation: Operation, result: Any) -> bool:
    """Return whether *result* has the action and the key of *operation*."""
    entity_type, key = operation.target
    try:
        data = result["data"]
        if result["action"] != operation.action:
            return False
        if isinstance(operation, Delete):
            return data is True
        if any(str(data[name]).lower() != value.lower() for name, value in key):
            return False
        return entity_type not in _CONCRETE_TYPES or _is_row_of(entity_type, data)
    except (LookupError, TypeError):
        return False


def _is_row_of(entity_type: str, row: Mapping[str, Any]) -> bool:
    return bool(row.get(ENTITY_TYPE, entity_type) == entity_type)


def _is_of_call(action: object, operation: Mapping[str, JSONValue], result: Any) -> bool:
    if isinstance(result, dict) and result.get("action", action) != action:
        return False
    check = _CHECKS.get(str(action))
    return check is None or check(operation, result)


def _is_of_wire_write(operation: Mapping[str, JSONValue], result: Any) -> bool:
    match result:
        case {"action": str(), "data": data}:
            pass
        case _:
            return False
    if operation["action"] == "delete":
        return data is True
    if not isinstance(data, dict):
        return False
    key, values = operation.get("entity_key"), operation.get("entity_data")
    if key is None and isinstance(values, Mapping):
        key = values.get("id")
    # The names of the key's attributes are in the schemas only.
    parts = key if isinstance(key, Sequence) and not isinstance(key, str) else [key]
    found = {str(value).lower() for value in data.values() if isinstance(value, (str, int))}
    return found.issuperset(str(part).lower() for part in parts if part is not None)


def _is_of_query(operation: Mapping[str, JSONValue], result: Any) -> bool:
    rows = result.get("data") if isinstance(result, dict) else None
    if not isinstance(rows, list):
        return False
    expression = str(operation.get("expression", ""))
    target = re.match(_QUERY_TARGET, expression)
    if target is not None and target[1] in _CONCRETE_TYPES:
        kinds = {
            kind
            for row in rows
            if isinstance(row, dict) and isinstance(kind := row.get(ENTITY_TYPE), str)
        }
        # What cannot be a row is refused later.
        if any(kind.isidentifier() for kind in kinds - {target[1]}):
            return False
    asked = re.search(_QUERY_OF_IDS, expression) if rows else None
    if asked is None:
        return True
    ids = {each.lower() for each in re.findall(r'"([^"]*)"', asked[1])}
    found = [row["id"] for row in rows if isinstance(row, dict) and "id" in row]
    return all(str(each).lower() in ids for each in found)


def _is_list_of_schemas(_: object, result: Any) -> bool:
    return isinstance(result, list) and bool(result)


def _is_server_information(_: object, result: Any) -> bool:
    return isinstance(result, dict) and "data" not in result


def _is_about_component(operation: Mapping[str, JSONValue], result: Any) -> bool:
    component_id = operation.get("component_id")
    return isinstance(result, dict) and result.get("component_id", component_id) == component_id


_CHECKS: Mapping[str, Callable[[Mapping[str, JSONValue], Any], bool]] = {
    "create": _is_of_wire_write,
    "update": _is_of_wire_write,
    "delete": _is_of_wire_write,
    "query": _is_of_query,
    "query_schemas": _is_list_of_schemas,
    "query_server_information": _is_server_information,
    "get_upload_metadata": _is_about_component,
    "complete_multipart_upload": _is_about_component,
}
