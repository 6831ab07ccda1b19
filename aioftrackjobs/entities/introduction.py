"""The user that a session acts as.

Who that is can be asked before what reads the answer is imported, which takes longer than most
servers take to answer. That is for a session without entities: where there may be some, a model
of the user's own may stand for users, and what is known of them may be newer than the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from aioftrackjobs.connection import Connection
from aioftrackjobs.errors import NoResultFoundError
from aioftrackjobs.protocol.query import USER_PROJECTIONS, bind

if TYPE_CHECKING:
    from aioftrackjobs.entities.context import EntityContext
    from aioftrackjobs.models import Entity, User


async def ask_early(connection: Connection) -> Any:
    """Return the server's answer, which :func:`read_early` reads."""
    expression = _expression(connection, USER_PROJECTIONS)
    (answer,) = await connection.call([{"action": "query", "expression": expression}])
    return answer


async def read_early(workspace: EntityContext, answer: Any) -> User:
    """Return the user of an *answer* to :func:`ask_early`.

    Raises:
        NoResultFoundError: There is no such user.
    """
    from aioftrackjobs.entities.queries import read_page

    expression = _expression(workspace.connection, USER_PROJECTIONS)
    return _only(await read_page(workspace, expression, answer), expression)


async def fetch_current_user(workspace: EntityContext) -> User:
    """Ask, and return the user.

    Raises:
        NoResultFoundError: There is no such user.
    """
    from aioftrackjobs.entities.queries import fetch_page

    projections = workspace.types.default_projections("User")
    expression = _expression(workspace.connection, projections)
    entities, _ = await fetch_page(workspace, expression)
    return _only(entities, expression)


def _expression(connection: Connection, projections: Sequence[str]) -> str:
    criteria = bind("username is {name}", {"name": connection.credentials.api_user})
    return f"select {', '.join(projections)} from User where {criteria} limit 1"


def _only(entities: Iterable[Entity], expression: str) -> User:
    from aioftrackjobs.models import User

    for entity in entities:
        if isinstance(entity, User):
            return entity
    raise NoResultFoundError(expression)
