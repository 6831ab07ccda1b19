"""The form of an action: made from a pydantic model, and read back into it. Pure.

::

    class Delivery(BaseModel):
        codec: Codec = Codec.PRORES  # an enumeration becomes a list to choose from
        quality: int = Field(80, ge=1, le=100)
        note: str = Field("", json_schema_extra={"multiline": True})

What the web interface sends back is text as often as not: a number, a date with a time, one choice
in place of a list. It is brought into shape here, and the model validates it.

Source:
    docs/protocol.md, section 7.8.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, SecretStr, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo

from aioftrackjobs.errors import ArgumentError

M = TypeVar("M", bound=BaseModel)

#: One element of a form, or a whole form, as the web interface gets it.
Item: TypeAlias = dict[str, Any]

#: Choices of a field: the value and the label of each.
Choices: TypeAlias = Sequence[tuple[Any, str]]

_KINDS = (
    "a text, number, date, truth value, enumeration or Literal, a list of one of the last two, "
    "or one of these or None"
)

#: Characters of a value with an error that is shown again.
_LONGEST = 10_000

_DATE_LENGTH = len("2026-03-01")
_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a form.

    Attributes:
        name: Its name in the model, and on the wire.
        key: What the model calls it in values: its alias.
        kind: The type of the element in the web interface.
        info: Its description by pydantic.
        choices: What can be chosen, if that is known from the model.
        is_list: Whether several can be chosen.
        is_optional: Whether it can be None.
        python: Its type.
    """

    name: str
    key: str
    kind: str
    info: FieldInfo
    choices: Choices | None
    is_list: bool
    is_optional: bool
    python: Any

    @property
    def extra(self) -> Mapping[str, Any]:
        """What the model says of its element: ``multiline``, ``hidden`` or ``empty_text``."""
        extra = self.info.json_schema_extra
        return extra if isinstance(extra, Mapping) else {}

    @property
    def label(self) -> str:
        """What stands before it."""
        words = self.name.replace("_", " ").strip()
        return self.info.title or words[:1].upper() + words[1:]


class Form:
    """The form of a pydantic model.

    Args:
        model: The model.
        dynamic: Names of the fields whose choices are found at each launch.

    Raises:
        ArgumentError: A field has a type that no form has.
    """

    def __init__(self, model: type[BaseModel], dynamic: Sequence[str] = ()) -> None:
        self.model = model
        for name in dynamic:
            if name not in model.model_fields:
                raise ArgumentError("choices", f"fields of {model.__name__}", repr(name))
        self._fields = [
            _field(model, name, info, is_dynamic=name in dynamic)
            for name, info in model.model_fields.items()
        ]

    def show(
        self,
        title: str,
        choices: Mapping[str, Choices] | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
        values: Mapping[str, Any] | None = None,
        errors: Mapping[str, Sequence[str]] | None = None,
    ) -> Item:
        """Return the form as the web interface gets it.

        Args:
            title: Its title.
            choices: Those of the dynamic fields.
            defaults: What some fields begin with, in place of the defaults of the model.
            values: What the user has entered; None to begin with the defaults.
            errors: What is wrong with that, by the name of the field; "" for all of it.
        """
        config, errors = self.model.model_config, errors or {}
        extra = config.get("json_schema_extra")
        extra = extra if isinstance(extra, Mapping) else {}
        items = [_label(f"**{text}**") for text in errors.get("", ())]
        intro = self.model.__dict__.get("__doc__")
        if intro and values is None:
            items.append(_label(" ".join(intro.split())))
        for field in self._fields:
            items += [_label(f"**{field.label}**: {text}") for text in errors.get(field.name, ())]
            known = (choices or {}).get(field.name, field.choices)
            items.append(_item(field, known, defaults or {}, values))
        shown: Item = {"type": "form", "title": config.get("title") or title, "items": items}
        if "submit_button_label" in extra:
            shown["submit_button_label"] = str(extra["submit_button_label"])
        return shown

    def read(
        self, values: Mapping[str, Any], choices: Mapping[str, Choices] | None = None
    ) -> tuple[BaseModel | None, dict[str, list[str]]]:
        """Return the model with *values*; or None, and what is wrong with them by field.

        Args:
            values: What the web interface has sent.
            choices: Those of the dynamic fields.
        """
        errors: dict[str, list[str]] = {}
        found: dict[str, Any] = {}
        for field in self._fields:
            known = (choices or {}).get(field.name, field.choices)
            if field.name in values and not _is_left_out(field, values[field.name]):
                found[field.key] = _value(field, values[field.name], known)
                if field.choices is None and known is not None:
                    errors |= _unknown_choices(field, found[field.key], known)
        if errors:
            return None, errors
        try:
            return self.model.model_validate(found), {}
        except ValidationError as exc:
            names = {field.key: field.name for field in self._fields}
            for each in exc.errors(include_url=False, include_context=False, include_input=False):
                place = str(each["loc"][0]) if each["loc"] else ""
                name = names.get(place, "" if place not in self.model.model_fields else place)
                text = each["msg"].removeprefix("Value error, ")
                if text not in errors.setdefault(name, []):
                    errors[name].append(text)
            return None, errors


def _field(model: type[BaseModel], name: str, info: FieldInfo, *, is_dynamic: bool) -> _Field:
    python, is_optional = _without_none(info.annotation)
    is_list = get_origin(python) in (list, set, frozenset, tuple)
    inner = _without_none(next(iter(get_args(python)), str))[0] if is_list else python
    choices = _choices_of(inner)
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, Mapping) else {}
    kind = "enumerator" if choices is not None or is_dynamic else _kind_of(inner)
    if kind is None or (is_list and kind != "enumerator"):
        raise ArgumentError(f"{model.__name__}.{name}", _KINDS, f"a {info.annotation}")
    if kind == "text" and extra.get("multiline"):
        kind = "textarea"
    if extra.get("hidden"):
        kind = "hidden"
    key = _key_of(model, name, info)
    return _Field(name, key, kind, info, choices, is_list, is_optional, inner)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """Return *annotation* without ``Annotated`` and ``| None``, and whether it had the latter."""
    if get_origin(annotation) is Annotated:
        return _without_none(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        others = [each for each in get_args(annotation) if each is not types.NoneType]
        if len(others) == 1:
            return _without_none(others[0])[0], True
    return annotation, False


def _choices_of(python: Any) -> Choices | None:
    if isinstance(python, type) and issubclass(python, Enum):
        return [(plain(each), _words(each.name)) for each in python]
    if get_origin(python) is Literal:
        return [(plain(each), str(plain(each))) for each in get_args(python)]
    return None


def _words(name: str) -> str:
    words = name.replace("_", " ")
    return words.capitalize() if words.isupper() else words


def _kind_of(python: Any) -> str | None:
    if not isinstance(python, type):
        return None
    for kinds, name in (
        ((bool,), "boolean"),
        ((int, float, Decimal), "number"),
        ((date,), "date"),
        ((str, SecretStr), "text"),
    ):
        if issubclass(python, kinds):
            return name
    return "text" if _is_read_from_text(python) else None


def _is_read_from_text(python: type) -> bool:
    """Return whether pydantic reads *python* from a text: a path, an address, a UUID, a time."""
    try:
        schema = TypeAdapter(python).json_schema(mode="validation")
    except (PydanticUserError, PydanticSchemaGenerationError):
        return False
    return schema.get("type") == "string" and schema.get("format") != "binary"


def _key_of(model: type[BaseModel], name: str, info: FieldInfo) -> str:
    """Return what *model* calls a field in values: its alias, unless it takes the name."""
    config, alias = model.model_config, info.validation_alias
    if config.get("validate_by_name") or config.get("populate_by_name"):
        return name
    if isinstance(alias, AliasChoices):
        alias = next((each for each in alias.choices if isinstance(each, str)), None)
    return alias if isinstance(alias, str) else name


def _label(text: str) -> Item:
    return {"type": "label", "value": text}


def _item(
    field: _Field,
    choices: Choices | None,
    defaults: Mapping[str, Any],
    values: Mapping[str, Any] | None,
) -> Item:
    item: Item = {"type": field.kind, "name": field.name}
    if field.kind != "hidden":
        item["label"] = field.label
    if field.kind == "enumerator":
        item["data"] = [{"value": value, "label": label} for value, label in choices or ()]
        if field.is_list:
            item["multi_select"] = True
    if field.info.description and "empty_text" not in field.extra:
        item["empty_text"] = field.info.description
    elif "empty_text" in field.extra:
        item["empty_text"] = str(field.extra["empty_text"])
    if values is not None:
        value = _shortened(values.get(field.name))
    elif field.name in defaults:
        value = plain(defaults[field.name])
    else:
        value = None if field.info.is_required() else plain(_default_of(field.info))
    if value is not None:
        item["value"] = value
    elif field.kind in ("text", "textarea", "hidden"):
        item["value"] = ""
    return item


def _default_of(info: FieldInfo) -> Any:
    try:
        return info.get_default(call_default_factory=True)
    except Exception:  # noqa: BLE001 - a factory that needs other values, which are not known
        return None


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return value[:_LONGEST]
    if isinstance(value, list):
        return [_shortened(each) for each in value[:_LONGEST]]
    is_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_number else None


def plain(value: Any) -> Any:
    """Return a default, or a choice, as JSON can hold it."""
    match value:
        case Enum():
            found = plain(value.value)
            return found if isinstance(found, str | int | float | bool) else value.name
        case list() | tuple() | set() | frozenset():
            return [plain(each) for each in value]
        case date():
            return value.isoformat()
        case Decimal():
            return float(value)
        case SecretStr():
            return ""
        case None | str() | int() | float():
            return value
        case _:
            return str(value)


# What comes back


def _is_left_out(field: _Field, value: object) -> bool:
    """Return whether the user has left a field empty which has a default, or can be None."""
    if value is None:
        return not field.is_optional
    is_text = field.kind in ("text", "textarea", "hidden") and not field.is_optional
    return value == "" and not is_text and not field.is_optional


def _value(field: _Field, value: Any, choices: Choices | None) -> Any:
    if value == "" and field.is_optional:
        return None
    if field.is_list:
        return [_choice(field, each, choices) for each in _several(value, choices)]
    if choices is not None:
        if isinstance(value, list) and len(value) == 1:
            (value,) = value
        return _choice(field, value, choices)
    if field.kind == "date" or (field.kind == "hidden" and _kind_of(field.python) == "date"):
        return _date(field, value)
    if field.kind == "boolean" and isinstance(value, str):
        text = value.strip().lower()
        return True if text in _TRUE else False if text in _FALSE else value
    if field.kind == "number" and isinstance(value, str):
        return value.strip()
    if field.kind == "number" and issubclass(field.python, int) and isinstance(value, float):
        return int(value) if value.is_integer() else value
    return value


def _several(value: Any, choices: Choices | None) -> list[Any]:
    if isinstance(value, list):
        return value
    if not isinstance(value, str) or any(str(known) == value for known, _ in choices or ()):
        return [value]
    return [each.strip() for each in value.split(",") if each.strip()]


def _choice(field: _Field, value: Any, choices: Choices | None) -> Any:
    """Return the choice that *value* names; browsers send numbers and truth values as texts."""
    known = [each for each, _ in choices or ()]
    chosen = next(
        (each for each in known if each == value and type(each) is type(value)),
        next((each for each in known if str(each) == str(value)), value),
    )
    if isinstance(field.python, type) and issubclass(field.python, Enum):
        return next((each for each in field.python if plain(each) == chosen), chosen)
    if get_origin(field.python) is Literal:
        return next((each for each in get_args(field.python) if plain(each) == chosen), chosen)
    return chosen


def _unknown_choices(field: _Field, value: Any, choices: Choices) -> dict[str, list[str]]:
    known = [each for each, _ in choices]
    chosen = value if isinstance(value, list) else [value]
    if all(each in known for each in chosen if each is not None):
        return {}
    return {field.name: ["this cannot be chosen any more"]}


def _date(field: _Field, value: Any) -> Any:
    """Return a date as the model reads it: browsers send a time along."""
    is_text = isinstance(value, str) and len(value) > _DATE_LENGTH
    if is_text and not issubclass(field.python, datetime):
        return value[:_DATE_LENGTH]
    return value
