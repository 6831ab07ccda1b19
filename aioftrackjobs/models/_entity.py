"""The entity: a pydantic model, and the mapping that users of the official client know.

An entity keeps the values of the server (*remote*) and the changes made here (*local*) apart, in
two dictionaries. A read returns the local value, if there is one, else the remote one. A change is
passed to the entity's owner, the session, which records it in a unit of work. Reading never causes
I/O: an attribute that no response has brought yet raises :class:`NotLoadedError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    PrivateAttr,
    SerializationInfo,
    ValidationError,
    model_serializer,
    model_validator,
)

from aioftrackjobs.config.settings import require, require_values
from aioftrackjobs.errors import (
    ImmutableAttributeError,
    InvalidKeyError,
    InvalidValueError,
    NotLoadedError,
    UnknownAttributeError,
)
from aioftrackjobs.models._attributes import EntityMeta, require_entity_type
from aioftrackjobs.models._collection import Collection
from aioftrackjobs.models._html import entity_html
from aioftrackjobs.models._mappings import MappedValues, takes_values, unloaded_view, view_of
from aioftrackjobs.models._state import Change, Owner, attach, load_missing, merge_into
from aioftrackjobs.models._values import (
    MAPS,
    PLAIN,
    invalid_value,
    prepare,
    require_flat,
    store,
    validated,
    verbatim_fields,
)
from aioftrackjobs.models._views import dump, label_parts, short_repr
from aioftrackjobs.protocol.operations import NOT_SET
from aioftrackjobs.protocol.values import ENTITY_TYPE, Reference

_STATE = ("_owner", "_remote", "_local", "_reference", "_read_numbers", "_is_own")
#: What pydantic keeps in an instance, made on first use: few entities ever need it.
_PYDANTIC_STATE: Mapping[str, Callable[[], object]] = {
    "__pydantic_fields_set__": set,
    "__pydantic_extra__": dict,
    "__pydantic_private__": lambda: None,
}
#: Names of pydantic that warn when they are read of an instance, as completion does.
_DEPRECATED = frozenset({"__fields__", "__fields_set__", "model_computed_fields", "model_fields"})


class Entity(BaseModel, MutableMapping[str, Any], metaclass=EntityMeta):
    """Anything that ftrack stores, identified by its type and its key.

    A session makes entities; there is one instance for each type and key. Read an attribute as an
    attribute or as an item. Setting it records a change, which the next commit sends::

        task = await session.query("Task where name is {name}", name="comp").one()
        task["status_id"] = approved["id"]  # or task.status_id = ..., if its class declares it
        await session.commit()

    An entity that is made directly (``Job(status="running")``) is *detached*: its values are
    validated, but its changes are not recorded. Two entities are equal if their types and keys are.

    Raises:
        NotLoadedError: An attribute is read that no response has brought; load it with
            ``await session.populate(entity, "name")``.
        UnknownAttributeError: The entity type has no such attribute.
        ImmutableAttributeError: The attribute is part of the key, or cannot be changed.
        InvalidValueError: The attribute cannot have the value that is assigned; a ValueError.
        UnserialisableValueError: JSON cannot hold the value.
    """

    __slots__ = _STATE
    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="allow", arbitrary_types_allowed=True, defer_build=True
    )
    #: Name of the entity type, as the server spells it.
    entity_type: ClassVar[str] = "Entity"
    #: Attributes that make up the key, in the order of the schema.
    primary_key_attributes: ClassVar[tuple[str, ...]] = ("id",)
    #: Attributes that a query without ``select`` loads.
    default_projections: ClassVar[tuple[str, ...]] = ("id",)
    #: Attributes that have no value in an entity that was created without them.
    empty_at_first: ClassVar[frozenset[str]] = frozenset()
    #: Attributes that keep the value they were created with.
    immutable_attributes: ClassVar[frozenset[str]] = frozenset()
    #: Functions that convert a value from the server, by attribute; the others stay as they are.
    readers: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}
    #: Whether the declared fields are all attributes there are, so that another name is a mistake.
    is_typed: ClassVar[bool] = False

    #: Attributes that accept any text unchanged, so that a text needs no validation.
    _verbatim: ClassVar[frozenset[str]] = frozenset()

    if TYPE_CHECKING:  # slots; at run time, pydantic would make private attributes of these
        _owner: Owner | None = PrivateAttr()
        _remote: dict[str, Any] = PrivateAttr()
        _local: dict[str, Any] = PrivateAttr()
        _reference: Reference | None = PrivateAttr()  # cached, because a key does not change
        _read_numbers: Mapping[str, int] = PrivateAttr()  # see entities/freshness.py
        _is_own: bool = PrivateAttr()  # set when the session has created it

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in cls.__bases__:
            # Otherwise pydantic could look up the type of an inherited field in the module of the
            # subclass, which may not have it.
            is_foreign = base is not Entity and base.__module__ != cls.__module__
            if is_foreign and issubclass(base, Entity):
                base.model_rebuild(raise_errors=False)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        fixed = cls.immutable_attributes.union(cls.primary_key_attributes)
        cls._verbatim = verbatim_fields(cls) - fixed

    def __init__(self, /, **values: Any) -> None:
        if self.entity_type == Entity.entity_type:
            require_entity_type(type(self))
        is_dump = values.pop(ENTITY_TYPE, None) is not None  # by pydantic: with all that is loaded
        fields = self.__pydantic_fields__
        nested: dict[str, Any] = {}
        for name, value in values.items():
            if self.is_typed and name not in fields and not is_dump:
                raise UnknownAttributeError(self.entity_type, name, fields)
            if type(value) is dict:
                nested[name] = value
            elif name in MAPS or not (type(value) in PLAIN or isinstance(value, str)):
                values[name] = nested[name] = prepare(self.entity_type, name, value)
        try:
            super().__init__(**values)
        except ValidationError as exc:
            error = invalid_value(self.entity_type, exc)
        else:
            self._take_over()
            for name, value in nested.items():
                got = self._local.get(name)
                if type(got) is not str or name in MAPS:
                    require_flat(type(self), self.entity_type, name, value, got)
            return
        raise error

    def _take_over(self) -> None:
        """Move the validated values from pydantic's containers to the local values."""
        checked = {**self.__dict__, **(self.__pydantic_extra__ or {})}
        self.__dict__.clear()
        given = self.__pydantic_fields_set__
        put = object.__setattr__
        put(self, "__pydantic_fields_set__", set())
        put(self, "__pydantic_extra__", {})
        local: dict[str, Any] = {}
        put(self, "_owner", None)
        put(self, "_remote", {})
        put(self, "_local", local)
        for name, value in checked.items():
            if value is not None or name in given:  # an optional field that is not given is unset
                local[name] = value if isinstance(value, str) else store(value)

    # Identity

    def __ftrack_reference__(self) -> Reference:
        """Return the type and key that name this entity in a request.

        Raises:
            InvalidKeyError: A part of the key is missing.
        """
        if (known := getattr(self, "_reference", None)) is not None:
            return known  # type: ignore[no-any-return]
        key = tuple([(name, self._current(name)) for name in self.primary_key_attributes])
        for _, value in key:
            if not (value and isinstance(value, str)):
                given = tuple(value for _, value in key)
                raise InvalidKeyError(self.entity_type, self.primary_key_attributes, given)
        reference = Reference(self.entity_type, key)
        object.__setattr__(self, "_reference", reference)
        return reference

    def _identity(self) -> tuple[Any, ...]:
        return (self.entity_type, *(self._current(name) for name in self.primary_key_attributes))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Entity):
            return NotImplemented
        identity = self._identity()
        return None not in identity and identity == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        """Return type, key, and what people know the entity by, as far as it is loaded."""
        if not hasattr(self, "_local"):
            return f"<{self.entity_type}>"  # pydantic has not finished it, or refused it
        return short_repr(self, self._label())

    __str__ = __repr__

    _repr_html_ = entity_html

    def _label(self) -> list[str]:
        """Return what people know the entity by: its status and its name, as far as loaded."""
        return label_parts(self)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Return for pydantic what the repr shows. Other values may be long, or hold secrets."""
        yield from ((name, self._current(name)) for name in self.primary_key_attributes)
        yield from ((None, part) for part in self._label())

    def __dir__(self) -> Iterable[str]:
        """Return all names that can be read, for completion; an attribute may not be loaded yet."""
        return {*super().__dir__(), *self.attributes, *self} - _DEPRECATED

    def _ipython_key_completions_(self) -> list[str]:
        return [*dict.fromkeys((*self, *self.attributes))]

    # Reading

    def _current(self, name: str) -> Any:
        """Return the local value, else the remote one, else None."""
        return self._local[name] if name in self._local else self._remote.get(name)

    def __getitem__(self, name: str) -> Any:
        if name in (values := self._local) or name in (values := self._remote):
            value = values[name]
        elif name in MAPS and (view := unloaded_view(self, name)) is not None:
            return view
        else:
            value = load_missing(self, name)
        if type(value) is tuple:
            view = view_of(self, name) if name in MAPS else None
            return Collection(self, name) if view is None else view
        return value

    if not TYPE_CHECKING:  # so that a type checker finds a misspelt attribute of a typed model

        def __getattr__(self, name: str) -> Any:
            if name in _PYDANTIC_STATE:
                object.__setattr__(self, name, _PYDANTIC_STATE[name]())
                return getattr(self, name)
            if name.startswith("__") or name in _STATE:
                raise AttributeError(name)
            if name in self:
                return self[name]
            descriptor = getattr(type(self), name, None)
            if isinstance(descriptor, property):
                return descriptor.__get__(self)  # again, so that its own AttributeError is raised
            return self[name]

        def __setattr__(self, name: str, value: Any) -> None:
            if name in _STATE or name.startswith("__"):
                object.__setattr__(self, name, value)
            elif isinstance(descriptor := getattr(type(self), name, None), property):
                descriptor.__set__(self, value)
            else:
                self[name] = value

    def _missing(self, name: str) -> NotLoadedError | UnknownAttributeError:
        known = self.attributes
        if (known and name not in known) or not isinstance(name, str):
            return UnknownAttributeError(self.entity_type, name, known)
        return NotLoadedError(self.entity_type, name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of *name*, or *default* if the type has no such attribute.

        Raises:
            NotLoadedError: The attribute is not loaded. The default could hide its value.
        """
        try:
            return self[name]
        except UnknownAttributeError:
            return default

    @property
    def _is_new(self) -> bool:
        """Whether the server does not have it yet, so that an unset attribute has no value."""
        return not self._remote

    def __contains__(self, name: object) -> bool:
        return name in self._local or name in self._remote

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        yield from {**self._remote, **self._local}  # a copy: another thread may load more

    def __len__(self) -> int:
        return len(self._remote.keys() | self._local.keys())

    def __bool__(self) -> bool:
        return True  # also if no attribute is loaded, when a mapping would be false

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of all attributes of the type; empty for a generic type without its schema."""
        declared = tuple(type(self).model_fields)
        from_schema = self._owner.attributes_of(self.entity_type) if self._owner else ()
        if not self.is_typed and not from_schema:
            return ()
        return tuple(dict.fromkeys((*declared, *from_schema, *self)))

    # Changing

    def __setitem__(self, name: str, value: Any) -> None:
        if type(value) is str and name in self._verbatim:
            checked: Any = value  # the fast path: progress texts are set again and again
        elif isinstance(value, (Collection, MappedValues)) and value.is_of(self, name):
            return  # the last step of ``entity[name] += ...``: the change is recorded already
        elif takes_values(self, name, value):
            self[name].replace(value)
            return
        else:
            checked = self._check(name, value)
        if self._owner is not None:
            self._owner.record_update(self, name, checked)
        self._local[name] = checked

    def update(self, values: Any = (), /, **more: Any) -> None:
        """Set several attributes; if one cannot have its value, none is set."""
        given = dict(values, **more)
        maps = {name: given.pop(name) for name in MAPS if takes_values(self, name, given.get(name))}
        for name, value in maps.items():
            self[name].check(value)
        checked = {name: self._check(name, value) for name, value in given.items()}
        for name, value in checked.items():
            if self._owner is not None:
                self._owner.record_update(self, name, value)
            self._local[name] = value
        for name, value in maps.items():
            self[name].replace(value)

    def _require_known(self, name: str) -> None:
        if name not in self.__pydantic_fields__:
            error = self._missing(name)
            if isinstance(error, UnknownAttributeError):
                raise error

    def _check(self, name: str, value: Any) -> Any:
        self._require_known(name)
        fixed = name in self.primary_key_attributes or name in self.immutable_attributes
        if fixed and self._current(name) not in (None, value, str(value)):
            raise ImmutableAttributeError(self.entity_type, name)
        return self.checked_value(name, value, self._owner)

    @classmethod
    def checked_value(cls, name: str, value: Any, owner: Owner | None = None) -> Any:
        """Return *value* validated and converted, as the attribute *name* stores it.

        Raises:
            InvalidValueError: The attribute cannot have this value. The *owner* removes secrets
                from its text.
            UnserialisableValueError: JSON cannot hold it.
        """
        if type(value) is str and name in cls._verbatim:
            return value
        try:
            return validated(cls, cls.entity_type, name, value, owner)
        except InvalidValueError as exc:
            if owner is not None:
                exc.hide(owner.redact)
            raise

    def __delitem__(self, name: str) -> None:
        """Take back the local change of *name*; nothing is deleted on the server.

        Raises:
            ImmutableAttributeError: The attribute is a part of the key.
        """
        if name in self.primary_key_attributes:
            raise ImmutableAttributeError(self.entity_type, name)
        if name not in self:
            raise self._missing(name)
        if name in self._local:
            others = NOT_SET if self._owner is None else self._owner.record_reset(self, name)
            if others is NOT_SET:
                del self._local[name]
            else:
                self._local[name] = others

    def __delattr__(self, name: str) -> None:
        del self[name]

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return the value of *name*; set it to *default* first if a new entity has none.

        Raises:
            NotLoadedError: The attribute is not loaded. The default could overwrite its value.
        """
        if name not in self and self._is_new:
            self[name] = default
        return self[name]

    def pop(self, name: str, default: Any = NOT_SET) -> Any:
        """Take back the local change of *name*, and return the value from before.

        Raises:
            NotLoadedError: The type has the attribute, but it is not loaded.
            UnknownAttributeError: The type has no such attribute, and there is no *default*.
        """
        try:
            value = self[name]
        except UnknownAttributeError:
            if default is NOT_SET:
                raise
            return default
        del self[name]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Take back the latest local change, and return its name and value."""
        for name in reversed(self._changed()):
            value = self.pop(name)
            if self._local.get(name, NOT_SET) is not value:  # else another task has recorded it
                return name, value
        raise KeyError("no local change")

    def clear(self) -> None:
        """Take back all local changes, except for the key and for what other tasks have changed."""
        for name in self._changed():
            del self[name]

    def _changed(self) -> list[str]:
        return [name for name in tuple(self._local) if name not in self.primary_key_attributes]

    def merge(self, entity: Entity, merged: dict[Any, Entity] | None = None) -> list[Change]:
        """Copy the values of *entity* to this one, and return what changed.

        Args:
            entity: The entity to copy from. Its local values become local changes here.
            merged: What a caller that walks a graph has merged already; this entity is added.
        """
        require(isinstance(entity, Entity), "entity", "an entity", entity)
        if merged is not None:
            merged[entity._identity()] = self
        return merge_into(self, entity)

    @model_validator(mode="before")
    @classmethod
    def _refuse_other_types(cls, value: Any) -> Any:
        """Keep pydantic from taking an entity of another type for a mapping of fields."""
        if isinstance(value, Entity) and not isinstance(value, cls):
            raise ValueError(f"{value!r} is no {cls.entity_type}")  # noqa: TRY004 - pydantic's
        return value

    @model_serializer(mode="plain")
    def _dump(self, info: SerializationInfo) -> dict[str, Any]:
        return dump(self, info)

    @classmethod
    def model_construct(  # type: ignore[override]  # pydantic's plugin gives it another one
        cls, _fields_set: set[str] | None = None, **values: Any
    ) -> Self:
        """Return a detached entity with *values*, which are not validated."""
        made = super().model_construct(_fields_set, **values)
        made._take_over()
        return made

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a detached entity with the same values, changed by *update*, which is validated.

        The key may be among the new values. The copy shares the others, whatever *deep* says.
        """
        require_values("update", update)
        copy = self.__deepcopy__()
        for name, value in (update or {}).items():
            self._require_known(name)
            copy._local[name] = self.checked_value(name, value)
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return {"remote": self._remote, "local": self._local}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copied or pickled entity, which belongs to no session."""
        attach(self, None)
        self._remote.update(state["remote"])
        self._local.update(state["local"])

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a detached entity: a session has only one instance for a key."""
        copy = type(self).__new__(type(self))
        copy.__setstate__(self.__getstate__())
        return copy

    def __copy__(self) -> Self:
        return self.__deepcopy__()
