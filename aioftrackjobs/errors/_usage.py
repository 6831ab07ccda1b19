"""Mistakes of the calling program. They are found before anything is recorded or sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

#: Characters of a value that the text of an error shows.
_LONGEST_VALUE = 80

#: How like a known name a wrong one must be for a suggestion, from 0 to 1: "jobs" is like "Job".
_LIKENESS = 0.55


class FtrackJobsError(Exception):
    """Base class of all errors that this package raises on purpose.

    Example: ``except FtrackJobsError as error: logger.error(error)``
    """


class ConfigurationError(FtrackJobsError):
    """A setting that a session needs is missing or wrong.

    Example: ``except ConfigurationError as error: print(*error.problems)``

    Attributes:
        problems: One sentence for each setting to correct.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(problems)
        self.problems: tuple[str, ...] = tuple(problems)

    def __str__(self) -> str:
        return "the session is not configured: " + "; ".join(self.problems)


class ArgumentError(FtrackJobsError, TypeError, ValueError):
    """An argument of a function has a wrong type or value. Nothing was recorded or sent.

    Example: ``job_context(session, grace=-1)``

    It is a TypeError and a ValueError, so that code that expects either of them catches it.

    Attributes:
        argument: Name of the argument.
        expected: What it must be.
        given: What was given instead: a number, or the type of any other value.
    """

    def __init__(self, argument: str, expected: str, given: str) -> None:
        super().__init__(argument, expected, given)
        self.argument = argument
        self.expected = expected
        self.given = given

    def __str__(self) -> str:
        return f"{self.argument} must be {self.expected}, not {self.given}"


class MissingExtraError(FtrackJobsError, ImportError):
    """A part of the package was used whose optional dependencies are not installed.

    Example:
        ``except MissingExtraError as error: print(f"pip install aioftrackjobs[{error.extra}]")``

    Attributes:
        extra: Name of the extra that installs them.
        package: The module that could not be imported.
    """

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(extra, package)
        self.extra = extra
        self.package = package

    def __str__(self) -> str:
        return (
            f"{self.package} is not installed; it comes with an extra: "
            f'pip install "aioftrackjobs[{self.extra}]"'
        )


class UnsupportedPlatformError(FtrackJobsError, NotImplementedError):
    """This part of the package does not work on this operating system. Nothing was done.

    Example: ``except UnsupportedPlatformError as error: print(error.instead)``

    Attributes:
        what: What does not work.
        where: Where it does.
        instead: What to do in its place.
    """

    def __init__(self, what: str, where: str, instead: str) -> None:
        super().__init__(what, where, instead)
        self.what = what
        self.where = where
        self.instead = instead

    def __str__(self) -> str:
        return f"{self.what} only on {self.where}; {self.instead}"


class SessionStateError(FtrackJobsError):
    """The session is not open, or belongs to another event loop, thread or process.

    Example: ``session.query(Job)  # after the block of the session``
    """


class QueryParameterError(FtrackJobsError, ValueError):
    """The text of a query and its parameters, or the way it is used, do not match.

    Example: ``session.query("Task where name is {name}")  # without name=``
    """


class EntityError(FtrackJobsError):
    """An entity was used in a way that is not possible. Nothing was recorded or sent.

    Example: ``except EntityError as error: print(error)``
    """


class _AttributeError(EntityError):
    """An attribute of an entity was used in a way that is not possible.

    Attributes:
        entity_type: Type of the entity.
        attribute: The name that was used.
    """

    def __init__(self, entity_type: str, attribute: str) -> None:
        super().__init__(entity_type, attribute)
        self.entity_type = entity_type
        self.attribute = attribute


class NotLoadedError(_AttributeError, AttributeError, KeyError):
    """An attribute was read that no response of the server has brought yet.

    Example: ``except NotLoadedError: await session.populate(task, "status.name")``
    """

    def __str__(self) -> str:
        variable = self.entity_type.lower()
        return (
            f"{self.entity_type}.{self.attribute} is not loaded; write: "
            f'await session.populate({variable}, "{self.attribute}")'
        )


class UnknownAttributeError(_AttributeError, AttributeError, KeyError):
    """The entity type has no such attribute.

    Example: ``job["stauts"] = "done"``
    """

    def __init__(self, entity_type: str, attribute: str, known: Iterable[str] = ()) -> None:
        super().__init__(entity_type, attribute)
        self._hint = _suggestion(attribute, known)

    def __str__(self) -> str:
        return f"{self.entity_type} has no attribute {self.attribute!r}.{self._hint}"


class ImmutableAttributeError(_AttributeError):
    """An attribute was changed that is read-only, or a part of the key of its entity.

    Example: ``job["id"] = "another"``
    """

    def __str__(self) -> str:
        return f"{self.entity_type}.{self.attribute} cannot be changed"


class UnknownEntityTypeError(EntityError):
    """The server has no such entity type.

    Example: ``session.create("Jobs")``

    Attributes:
        entity_type: The name that was used.
    """

    def __init__(self, entity_type: str, known: Iterable[str] = ()) -> None:
        super().__init__(entity_type)
        self.entity_type = entity_type
        self._hint = _suggestion(entity_type, known)

    def __str__(self) -> str:
        return f"the server has no entity type {_repr(self.entity_type)}.{self._hint}"


class InvalidKeyError(EntityError, ValueError):
    """A primary key has the wrong number of parts, or a part that is empty or no text.

    Example: ``await session.get(JobComponent, "one part of two")``

    Attributes:
        entity_type: Type of the entity.
        attributes: The attributes of its key, in the order of the schema.
        given: What was given as the key.
    """

    def __init__(self, entity_type: str, attributes: Sequence[str], given: object) -> None:
        super().__init__(entity_type, attributes, given)
        self.entity_type = entity_type
        self.attributes: tuple[str, ...] = tuple(attributes)
        self.given = given

    def __str__(self) -> str:
        names = ", ".join(self.attributes)
        return f"the key of {self.entity_type} is ({names}), not {_repr(self.given)}"


class InvalidValueError(_AttributeError, ValueError):
    """An attribute of an entity cannot have a value.

    Example: ``except InvalidValueError as error: print(error.attribute, error.allowed)``

    Attributes:
        entity_type: Type of the entity.
        attribute: Name of the attribute.
        value: The value, if it is a text, a number or None; else a text that says what it is.
        reason: What values the attribute can have.
        allowed: These values, if there are only some.
    """

    def __init__(
        self,
        entity_type: str,
        attribute: str,
        value: object,
        reason: str,
        allowed: Sequence[str] = (),
    ) -> None:
        super().__init__(entity_type, attribute)
        is_plain = value is None or isinstance(value, str | bool | float) or _is_short(value)
        self.value = value if is_plain else f"a value of type {type(value).__name__}"
        self.reason = reason
        self.allowed: tuple[str, ...] = tuple(allowed)
        self.args: tuple[object, ...] = (entity_type, attribute, self.value, reason, self.allowed)
        self._shown = _shortened(repr(self.value)) if is_plain else str(self.value)

    def __str__(self) -> str:
        hint = _suggestion(self.value, self.allowed)
        text = f"{self.entity_type}.{self.attribute} cannot be {self._shown}: {self.reason}"
        return f"{text}.{hint}" if hint else text

    def hide(self, redact: Callable[[str], str]) -> None:
        """Remove what *redact* removes from the texts of this error."""
        if isinstance(self.value, str):
            self.value = redact(self.value)
        self._shown = redact(self._shown)
        self.args = (*self.args[:2], self.value, *self.args[3:])


class UnserialisableValueError(EntityError, TypeError):
    """A value cannot be sent to the server: JSON cannot hold it, or it is a time without a zone.

    Example: ``except UnserialisableValueError as error: print(error.path, error.type_name)``

    Attributes:
        path: Where the value is, e.g. ``Job.data.frames[3]``.
        type_name: Name of its Python type.
    """

    def __init__(self, path: str, type_name: str) -> None:
        super().__init__(path, type_name)
        self.path = path
        self.type_name = type_name

    def __str__(self) -> str:
        return f"{self.path}: a value of type {self.type_name} cannot be sent to ftrack"


def _repr(value: object) -> str:
    """Return the repr of *value*, or its type if its own method raises an error."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - of any class
        return f"a value of type {type(value).__name__}"


def _is_short(value: object) -> bool:
    """Return whether it is a whole number that is not too long to be shown."""
    return isinstance(value, int) and value.bit_length() < _LONGEST_VALUE


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _suggestion(name: object, known: Iterable[str]) -> str:
    """Return `` Did you mean ...?`` with the known name that is most like *name*, or nothing."""
    from difflib import get_close_matches  # takes 2 ms to import, and only mistakes need it

    if not isinstance(name, str):  # what is no name is like none
        return ""
    names = list(known)
    match = [
        *get_close_matches(name, names, 1, _LIKENESS),
        *get_close_matches(name.lower(), names, 1, _LIKENESS),
    ]
    return f" Did you mean {match[0]!r}?" if match else ""
