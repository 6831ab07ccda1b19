"""Printing a syntax tree as text that parses to an equal tree."""

from __future__ import annotations

from aioftrackjobs.devserver.query import ast


def print_query(query: ast.Query) -> str:
    """Return *query* as text, with no more parentheses than it needs."""
    parts = []
    if query.projections is not None:
        parts.append(f"select {', '.join(map(_projection, query.projections))} from")
    parts.append(query.entity_type)
    if query.criteria is not None:
        parts.append(f"where {_expression(query.criteria)}")
    if query.group_by:
        parts.append(f"group by {', '.join(map(_path, query.group_by))}")
    if query.order_by:
        parts.append(f"order by {', '.join(map(_ordering, query.order_by))}")
    if query.offset is not None:
        parts.append(f"offset {query.offset}")
    if query.limit is not None:
        parts.append(f"limit {query.limit}")
    return " ".join(parts)


def _path(path: ast.Path) -> str:
    return ".".join(f"{step.name}[{step.cast}]" if step.cast else step.name for step in path)


def _projection(projection: ast.Path | ast.Aggregate) -> str:
    if isinstance(projection, ast.Aggregate):
        return f"{projection.function}({_path(projection.path)})"
    return _path(projection)


def _ordering(ordering: ast.Ordering) -> str:
    return _projection(ordering.path) + " descending" * ordering.descending


def _expression(expression: ast.Expression) -> str:
    match expression:
        case ast.Or(operands=operands):
            return " or ".join(map(_operand, operands))
        case ast.And(operands=operands):
            return " and ".join(map(_operand, operands))
        case ast.Not(operand=operand):
            return f"not {_operand(operand)}"
        case ast.RelationTest(path=path, criteria=criteria):
            return f"{_path(path)} any ({_expression(criteria) if criteria else ''})"
        case ast.Membership(path=path, values=values, negated=negated):
            listed = print_query(values) if isinstance(values, ast.Query) else _literals(values)
            return f"{_path(path)} {'not_in' if negated else 'in'} ({listed})"
        case ast.Comparison(path=path, operator=operator, value=value):
            return f"{_path(path)} {operator} {_literal(value)}"


def _operand(expression: ast.Expression) -> str:
    text = _expression(expression)
    return f"({text})" if isinstance(expression, ast.And | ast.Or) else text


def _literals(literals: tuple[ast.Literal, ...]) -> str:
    return ", ".join(map(_literal, literals))


def _literal(literal: ast.Literal) -> str:
    """Return a value as it was written; its text still has the backslashes it needs."""
    if not literal.quoted:
        return literal.text
    return f"'{literal.text}'" if _has_bare_double(literal.text) else f'"{literal.text}"'


def _has_bare_double(text: str) -> bool:
    """Return whether a double quote in *text* has no backslash before it."""
    return '"' in text.replace("\\\\", "").replace('\\"', "")
