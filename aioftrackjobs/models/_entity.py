"""The entity: a pydantic model, and the mapping that users of the official client know.

What the server said (*remote*) and what was changed here (*local*) are kept apart, in two
dictionaries; a read sees the local value first. A change is handed to the entity's owner, the
session, which records it in a unit of work. Reading never causes I/O: what no answer has brought
yet raises :class:`NotLoadedError`.

Fields declared on a typed model say which attributes there are and what may be assigned; what
the server adds beyond them is kept all the same.
"""

from __future__ import annotations

from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
)
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    PrivateAttr,
    SerializationInfo,
    model_serializer,
    model_validator,
)

from aioftrackjobs.errors import (
    EntityError,
    ImmutableAttributeError,
    InvalidKeyError,
    NotLoadedError,
    UnknownAttributeError,
)
from aioftrackjobs.models._collection import Collection
from aioftrackjobs.models._fields import verbatim_fields
from aioftrackjobs.models._state import Change, Owner, as_plain, attach, merge_into
from aioftrackjobs.protocol.values import Reference

_STATE = ("_owner", "_remote", "_local", "_reference", "_told")
_NO_DEFAULT: Any = object()
#: What pydantic keeps in an instance, made only for those where it is asked for.
_PYDANTIC_STATE: Mapping[str, Callable[[], object]] = {
    "__pydantic_fields_set__": set,
    "__pydantic_extra__": dict,
    "__pydantic_private__": lambda: None,
}


class Entity(BaseModel, MutableMapping[str, Any]):
    """Anything ftrack stores: identified by its type and key, equal to what has the same.

    Entities come from a session; one made directly (``Job(status="running")``) is *detached*:
    its values are checked, but its changes are recorded nowhere.
    """

    __slots__ = _STATE

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True, defer_build=True)

    #: Name of the type on the wire.
    entity_type: ClassVar[str] = "Entity"
    #: Attributes that make up the key, in the order of the wire.
    primary_key_attributes: ClassVar[tuple[str, ...]] = ("id",)
    #: What a query without ``select`` loads.
    default_projections: ClassVar[tuple[str, ...]] = ("id",)
    #: Attributes that keep the value they were created with.
    immutable_attributes: ClassVar[frozenset[str]] = frozenset()
    #: How a value of the server is read, for attributes whose wire form is not enough.
    readers: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}
    #: Whether the declared fields are all there is, so that a name beyond them is a mistake.
    is_typed: ClassVar[bool] = False

    #: Attributes that keep any text as it is, so that there is nothing to validate or to refuse.
    _verbatim: ClassVar[frozenset[str]] = frozenset()

    if TYPE_CHECKING:  # slots, which pydantic need not fill with private attributes of its own
        _owner: Owner | None = PrivateAttr()
        _remote: dict[str, Any] = PrivateAttr()
        _local: dict[str, Any] = PrivateAttr()
        _reference: Reference | None = PrivateAttr()  # made once: a key does not change
        _told: Mapping[str, int] = PrivateAttr()  # see _freshness.py

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in cls.__bases__:
            # A field whose type was not yet known where it is declared would be looked up in the
            # module of the subclass, which need not know it.
            is_foreign = base is not Entity and base.__module__ != cls.__module__
            if is_foreign and issubclass(base, Entity):
                base.model_rebuild(raise_errors=False)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        fixed = cls.immutable_attributes.union(cls.primary_key_attributes)
        cls._verbatim = verbatim_fields(cls) - fixed

    def __init__(self, /, **values: Any) -> None:
        require_entity_type(type(self))
        super().__init__(**values)
        self._take_over()

    def _take_over(self) -> None:
        """Move the values from where pydantic put them to where ours are."""
        checked = {**self.__dict__, **(self.__pydantic_extra__ or {})}
        self.__dict__.clear()
        given = self.__pydantic_fields_set__
        put = object.__setattr__
        put(self, "__pydantic_fields_set__", set())
        put(self, "__pydantic_extra__", {})
        attach(self, None)
        local = self._local
        for name, value in checked.items():
            if value is not None or name in given:  # an optional field not given has no value
                local[name] = value if type(value) is str else store(value)

    # Identity

    def __ftrack_reference__(self) -> Reference:
        """Return what names this entity on the wire.

        Raises:
            InvalidKeyError: A part of the key is missing.
        """
        known: Reference | None = getattr(self, "_reference", None)
        if known is not None:
            return known
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
        key = " ".join(f"{name}={self._current(name)!r}" for name in self.primary_key_attributes)
        return f"<{self.entity_type} {key}>"

    __str__ = __repr__

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return ((name, self._current(name)) for name in self)

    # Reading

    def _current(self, name: str) -> Any:
        """Return the local value, else the remote one, else None."""
        return self._local[name] if name in self._local else self._remote.get(name)

    def __getitem__(self, name: str) -> Any:
        if name in self._local:
            value = self._local[name]
        elif name in self._remote:
            value = self._remote[name]
        else:
            raise self._missing(name)
        return Collection(self, name) if type(value) is tuple else value

    if not TYPE_CHECKING:  # a misspelt attribute of a typed model is for the type checker to find

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
                return descriptor.__get__(self)  # its own AttributeError led here: let it out
            raise self._missing(name)

    def _missing(self, name: str) -> NotLoadedError | UnknownAttributeError:
        known = self.attributes
        if known and name not in known:
            return UnknownAttributeError(self.entity_type, name, known)
        return NotLoadedError(self.entity_type, name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of *name*, or *default* if the type has no such attribute.

        Raises:
            NotLoadedError: The type has the attribute, but it is not loaded. The default would
                hide a value that the server may have.
        """
        try:
            return self[name]
        except UnknownAttributeError:
            return default

    @property
    def _is_new(self) -> bool:
        """Whether no server knows it yet, so that what has no value here has none at all."""
        return not self._remote

    def __contains__(self, name: object) -> bool:
        return name in self._local or name in self._remote

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        yield from self._remote
        yield from (name for name in self._local if name not in self._remote)

    def __len__(self) -> int:
        return len(self._remote.keys() | self._local.keys())

    def __bool__(self) -> bool:
        return True  # an entity of which nothing is loaded is still there

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of all attributes of the type, as far as they are known; else of the loaded."""
        declared = tuple(type(self).model_fields)
        told = self._owner.attributes_of(self.entity_type) if self._owner else ()
        if not self.is_typed and not told:
            return ()
        return tuple(dict.fromkeys((*declared, *told, *self)))

    # Changing

    def __setitem__(self, name: str, value: Any) -> None:
        if type(value) is str and name in self._verbatim:
            checked: Any = value  # what a farm does all day
        elif isinstance(value, Collection) and value.is_of(self, name):
            return  # the end of ``entity[name] += ...``, which is recorded already
        else:
            checked = self._check(name, value)
        if self._owner is not None:
            self._owner.record_update(self, name, checked)
        self._local[name] = checked

    def _check(self, name: str, value: Any) -> Any:
        if name not in self.__pydantic_fields__:
            known = self.attributes
            if known and name not in known:
                raise UnknownAttributeError(self.entity_type, name, known)
        fixed = name in self.primary_key_attributes or name in self.immutable_attributes
        if fixed and self._current(name) not in (None, value):
            raise ImmutableAttributeError(self.entity_type, name)
        return self.checked_value(name, value)

    @classmethod
    def checked_value(cls, name: str, value: Any) -> Any:
        """Return *value* as the attribute *name* keeps it.

        Raises:
            ValueError: The attribute cannot have this value.
        """
        if type(value) is str and name in cls._verbatim:
            return value
        if isinstance(value, Collection):
            value = list(value)
        if name in cls.__pydantic_fields__:
            scratch = cls.__new__(cls)
            object.__setattr__(scratch, "__pydantic_fields_set__", set())
            object.__setattr__(scratch, "__pydantic_extra__", {})
            cls.__pydantic_validator__.validate_assignment(scratch, name, value)
            value = scratch.__dict__[name]
        return store(value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _STATE or name.startswith("__"):
            object.__setattr__(self, name, value)
        elif isinstance(descriptor := getattr(type(self), name, None), property):
            descriptor.__set__(self, value)
        else:
            self[name] = value

    def __delitem__(self, name: str) -> None:
        """Take back the local change of *name*; the server's value is left alone.

        Raises:
            ImmutableAttributeError: It is a part of the key.
        """
        if name in self.primary_key_attributes:
            raise ImmutableAttributeError(self.entity_type, name)
        if name not in self:
            raise self._missing(name)
        if name in self._local:
            if self._owner is not None:
                self._owner.record_reset(self, name)
            del self._local[name]

    def __delattr__(self, name: str) -> None:
        del self[name]

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return the value of *name*, which a new entity without one is given first.

        Raises:
            NotLoadedError: The server may have a value that the default would overwrite.
        """
        if name not in self and self._is_new:
            self[name] = default
        return self[name]

    def pop(self, name: str, default: Any = _NO_DEFAULT) -> Any:
        """Take back the local change of *name*, and return the value that was seen.

        Raises:
            NotLoadedError: The type has the attribute, but it is not loaded.
            UnknownAttributeError: It has not, and there is no *default*.
        """
        try:
            value = self[name]
        except UnknownAttributeError:
            if default is _NO_DEFAULT:
                raise
            return default
        del self[name]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Take back the latest local change, and return its name and value."""
        changed = self._changed()
        if not changed:
            raise KeyError("no local change")
        return changed[-1], self.pop(changed[-1])

    def clear(self) -> None:
        """Take back all local changes; the key stays."""
        for name in self._changed():
            del self[name]

    def _changed(self) -> list[str]:
        return [name for name in self._local if name not in self.primary_key_attributes]

    def merge(self, entity: Entity, merged: dict[Any, Entity] | None = None) -> list[Change]:
        """Take over the values of *entity*, and return what changed.

        Args:
            entity: Source of the values; remote ones are taken as remote, local as local.
            merged: Entities already merged, by identity, for callers that walk a graph.
        """
        if merged is not None:
            merged[entity._identity()] = self
        return merge_into(self, entity)

    # pydantic

    @model_validator(mode="before")
    @classmethod
    def _refuse_other_types(cls, value: Any) -> Any:
        """Keep pydantic from taking an entity of another type for a mapping of fields."""
        if isinstance(value, Entity) and not isinstance(value, cls):
            raise ValueError(f"{value!r} is no {cls.entity_type}")  # noqa: TRY004 - pydantic's
        return value

    @model_serializer(mode="plain")
    def _dump(self, info: SerializationInfo) -> dict[str, Any]:
        plain = as_plain(self)
        included = plain.keys() if info.include is None else set(info.include)
        excluded = _excluded_names(info.exclude)
        return {
            name: value
            for name, value in plain.items()
            if name in included and name not in excluded
        }

    @classmethod
    def model_construct(  # type: ignore[override]  # pydantic's plugin gives it another one
        cls, _fields_set: set[str] | None = None, **values: Any
    ) -> Self:
        """Return a detached entity with *values*, which are not checked."""
        made = super().model_construct(_fields_set, **values)
        made._take_over()
        return made

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a detached entity with the same values, and those of *update* as local ones.

        Args:
            update: Values of attributes, which are checked; the key may be among them.
            deep: Makes no difference: what an entity holds is shared with its copies.
        """
        copy = self.__deepcopy__()
        for name, value in (update or {}).items():
            copy._local[name] = self.checked_value(name, value)
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return {"remote": self._remote, "local": self._local}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled entity, which belongs to no session."""
        attach(self, None)
        self._remote.update(state["remote"])
        self._local.update(state["local"])

    def __copy__(self) -> Self:
        return self.__deepcopy__()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a detached entity with the same values: there is one attached one for a key."""
        copy = type(self).__new__(type(self))
        attach(copy, None)
        copy._remote.update(self._remote)
        copy._local.update(self._local)
        return copy


def require_entity_type(model: type[Entity]) -> None:
    """Refuse a *model* that does not say which entity type it stands for.

    Raises:
        EntityError: It does not.
    """
    if model.entity_type == Entity.entity_type:
        raise EntityError(
            f"{model.__name__} stands for no entity type; declare one in the class: "
            'entity_type: ClassVar[str] = "Task"'
        )


def store(value: Any) -> Any:
    """Return *value* as entities keep it: a list of entities becomes a tuple.

    The tuple cannot change behind the entity's back; readers get a :class:`Collection` over it.
    """
    if isinstance(value, (list, tuple, Collection)) and all(
        isinstance(item, Entity) for item in value
    ):
        return tuple(value)
    return value


def _excluded_names(exclude: Any) -> set[Any]:
    """Return the names that pydantic's *exclude* leaves out as a whole, not in part."""
    if isinstance(exclude, Mapping):
        return {name for name, part in exclude.items() if part in (True, ...)}
    return set(exclude or ())
