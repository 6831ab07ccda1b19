"""Forms: what a model becomes in the web interface, and what comes back from there."""

from __future__ import annotations

import json
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    model_validator,
)

from aioftrackjobs import ArgumentError
from aioftrackjobs.actions.forms import Choices, Form


class Codec(Enum):
    PRORES = "prores"
    DNX_HD = "dnxhd"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Everything(BaseModel):
    """What a client gets."""

    model_config = ConfigDict(
        title="Delivery", json_schema_extra={"submit_button_label": "Deliver"}
    )

    name: str
    note: str = Field("", json_schema_extra={"multiline": True, "empty_text": "for the client"})
    quality: int = Field(80, ge=1, le=100, title="Quality in %")
    gain: float | None = None
    price: Decimal = Decimal("1.5")
    due: date | None = None
    at: datetime | None = None
    slates: bool = True
    codec: Codec = Codec.PRORES
    level: Level = Level.LOW
    size: Literal["hd", "uhd", 8] = "hd"
    parts: list[Codec] = [Codec.PRORES]
    extras: Annotated[set[Literal["lut", "edl"]], Field(description="optional")] = set()
    preset: str = Field("a", json_schema_extra={"hidden": True})


def items_of(form: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in form["items"] if "name" in item}


def test_each_type_of_field_has_its_element() -> None:
    form = Form(Everything).show("Deliver")
    items = items_of(form)

    assert (form["type"], form["title"]) == ("form", "Delivery")
    assert form["submit_button_label"] == "Deliver"
    assert form["items"][0] == {"type": "label", "value": "What a client gets."}
    assert {name: (item["type"], item.get("value")) for name, item in items.items()} == {
        "name": ("text", ""),
        "note": ("textarea", ""),
        "quality": ("number", 80),
        "gain": ("number", None),
        "price": ("number", 1.5),
        "due": ("date", None),
        "at": ("date", None),
        "slates": ("boolean", True),
        "codec": ("enumerator", "prores"),
        "level": ("enumerator", 1),
        "size": ("enumerator", "hd"),
        "parts": ("enumerator", ["prores"]),
        "extras": ("enumerator", []),
        "preset": ("hidden", "a"),
    }
    assert items["quality"]["label"] == "Quality in %"
    assert items["note"]["empty_text"] == "for the client"
    assert items["extras"]["empty_text"] == "optional"
    assert items["codec"]["data"] == [
        {"value": "prores", "label": "Prores"},
        {"value": "dnxhd", "label": "Dnx hd"},
    ]
    assert items["parts"]["multi_select"] is True
    assert "label" not in items["preset"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"quality": "7"}, {"quality": 7}),
        ({"quality": 7.0}, {"quality": 7}),
        ({"quality": ""}, {"quality": 80}),
        ({"quality": None}, {"quality": 80}),
        ({"gain": ""}, {"gain": None}),
        ({"gain": "1.5"}, {"gain": 1.5}),
        ({"due": "2026-03-01"}, {"due": date(2026, 3, 1)}),
        ({"due": "2026-03-01T10:30:00.000Z"}, {"due": date(2026, 3, 1)}),
        ({"due": ""}, {"due": None}),
        ({"at": "2026-03-01T10:30:00"}, {"at": datetime(2026, 3, 1, 10, 30)}),
        ({"slates": "false"}, {"slates": False}),
        ({"slates": False}, {"slates": False}),
        ({"codec": "dnxhd"}, {"codec": Codec.DNX_HD}),
        ({"codec": ["dnxhd"]}, {"codec": Codec.DNX_HD}),
        ({"level": "2"}, {"level": Level.HIGH}),
        ({"size": "8"}, {"size": 8}),
        ({"parts": ["dnxhd", "prores"]}, {"parts": [Codec.DNX_HD, Codec.PRORES]}),
        ({"parts": "dnxhd"}, {"parts": [Codec.DNX_HD]}),
        ({"parts": "dnxhd,prores"}, {"parts": [Codec.DNX_HD, Codec.PRORES]}),
        ({"parts": []}, {"parts": []}),
        ({"extras": "edl"}, {"extras": {"edl"}}),
        ({"note": ""}, {"note": ""}),
        ({"unknown": object()}, {}),
    ],
)
def test_what_a_browser_sends_becomes_what_the_model_has(
    given: dict[str, Any], expected: dict[str, Any]
) -> None:
    found, errors = Form(Everything).read({"name": "a", **given})

    assert errors == {}
    assert found is not None
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({}, "name"),
        ({"name": None}, "name"),
        ({"name": 3}, "name"),
        ({"name": ["a"]}, "name"),
        ({"quality": "many"}, "quality"),
        ({"quality": 101}, "quality"),
        ({"quality": {}}, "quality"),
        ({"due": "tomorrow"}, "due"),
        ({"slates": "perhaps"}, "slates"),
        ({"codec": "h264"}, "codec"),
        ({"codec": {"a": 1}}, "codec"),
        ({"parts": ["prores", "h264"]}, "parts"),
        ({"parts": 3}, "parts"),
        ({"level": 3}, "level"),
    ],
)
def test_errors_bring_the_form_back_with_what_was_entered(
    given: dict[str, Any], wrong: str
) -> None:
    form = Form(Everything)
    values = {"note": "mine", **({} if wrong == "name" else {"name": "a"}), **given}

    found, errors = form.read(values)

    assert found is None
    assert list(errors) == [wrong]
    again = form.show("Deliver", values=values, errors=errors)
    position = [item.get("name") for item in again["items"]].index(wrong)
    assert errors[wrong][0] in again["items"][position - 1]["value"]
    assert items_of(again)["note"]["value"] == "mine"


def test_an_error_about_the_whole_form_stands_above_it() -> None:
    class Range(BaseModel):
        first: int = 1
        last: int = 2

        @model_validator(mode="after")
        def check(self) -> Range:
            if self.first > self.last:
                raise ValueError("the last frame is before the first")
            return self

    found, errors = Form(Range).read({"first": "5"})

    assert (found, errors) == (None, {"": ["the last frame is before the first"]})
    shown = Form(Range).show("Render", values={"first": "5"}, errors=errors)
    assert shown["items"][0]["value"] == "**the last frame is before the first**"
    assert shown["items"][1]["value"] == "5"


def test_choices_that_are_found_at_the_launch_are_checked_again() -> None:
    class Chosen(BaseModel):
        jobs: list[str]
        main: str | None = None

    form = Form(Chosen, ["jobs", "main"])
    choices: dict[str, Choices] = {"jobs": [("1", "one")], "main": [(2, "two")]}

    items = items_of(form.show("Stop", choices))
    assert items["jobs"]["data"] == [{"value": "1", "label": "one"}]
    assert form.read({"jobs": ["1"]}, choices)[1] == {}
    assert list(form.read({"jobs": ["2"]}, choices)[1]) == ["jobs"]
    assert list(form.read({"jobs": ["1"], "main": "3"}, choices)[1]) == ["main"]
    with pytest.raises(ArgumentError, match="choices must be fields of Chosen"):
        Form(Chosen, ["job"])


def test_what_pydantic_reads_from_a_text_is_a_text() -> None:
    class Others(BaseModel):
        folder: Path = Path("/mnt")
        address: HttpUrl | None = None
        key: UUID | None = None
        at: time | None = None
        both: int = Field(1, validation_alias=AliasChoices(AliasPath("a", 0), "one", "two"))
        steps: tuple[Literal["a", "b"], ...] = ("a",)

    form = Form(Others)
    kinds = {name: item["type"] for name, item in items_of(form.show("a")).items()}
    assert kinds == dict.fromkeys(("folder", "address", "key", "at"), "text") | {
        "both": "number",
        "steps": "enumerator",
    }
    values = {"folder": "/tmp", "key": str(UUID(int=1)), "at": "10:30", "address": "", "both": 2}
    found, errors = form.read({**values, "steps": "b"})
    assert errors == {}
    assert found == Others(
        folder=Path("/tmp"), key=UUID(int=1), at=time(10, 30), one=2, steps=["b"]
    )
    assert list(form.read({"address": "nowhere"})[1]) == ["address"]


def test_an_alias_is_the_name_in_the_model_alone() -> None:
    class Aliased(BaseModel):
        quality: int = Field(alias="q", ge=1)

    form = Form(Aliased)
    found, _ = form.read({"quality": 3})

    assert isinstance(found, Aliased)
    assert found.quality == 3
    assert list(form.read({"quality": 0})[1]) == ["quality"]
    assert list(form.read({})[1]) == ["quality"]


@pytest.mark.parametrize("kind", [dict[str, str], Everything, int | str, bytes, list[int], object])
def test_a_field_that_no_form_has_is_refused_where_it_is_declared(kind: Any) -> None:
    model = type("Odd", (BaseModel,), {"__annotations__": {"field": kind}})
    with pytest.raises(ArgumentError, match=r"Odd\.field must be a text, number"):
        Form(model)


def test_long_and_odd_values_are_not_sent_back_as_they_are() -> None:
    class Number(BaseModel):
        number: int
        note: str = ""

    odd = {"number": float("inf"), "note": {"a": object()}}
    json.dumps(Form(Number).show("a", values=odd, errors={}), allow_nan=False)
    values = {"number": "x" * 1_000_000, "note": "y" * 1_000_000}
    _, errors = Form(Number).read(values)

    assert len(str(Form(Number).show("a", values=values, errors=errors))) < 30_000
