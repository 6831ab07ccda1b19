"""The public surface: what is listed is there, and what is there is listed."""

from __future__ import annotations

import inspect
import pydoc
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import aioftrackjobs
from aioftrackjobs import actions, devserver, errors, testing
from aioftrackjobs.config import retry
from aioftrackjobs.errors import FtrackJobsError
from aioftrackjobs.running import recovery


def test_all_lists_exactly_the_public_names() -> None:
    found = {name: getattr(aioftrackjobs, name) for name in aioftrackjobs.__all__}
    names = {
        name
        for name, value in vars(aioftrackjobs).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }

    assert not any(map(inspect.ismodule, found.values()))
    assert names - found.keys() == {"TYPE_CHECKING", "import_module"}
    assert set(dir(aioftrackjobs)) >= set(aioftrackjobs.__all__)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'AsyncSesion'"):
        getattr(aioftrackjobs, "AsyncSesion")  # noqa: B009 - a type checker would find it


def test_all_of_testing_is_documented() -> None:
    names = {
        name
        for name, value in vars(testing).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }

    assert set(testing.__all__) == names
    assert [name for name in names if not inspect.getdoc(getattr(testing, name))] == []


def test_every_error_is_exported_listed_and_has_its_place_in_the_tree() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value)
        and issubclass(value, FtrackJobsError)
        and not name.startswith("_")
    }

    assert found == set(errors.__all__)
    assert {getattr(errors, name).__module__ for name in found} == {errors.__name__}
    assert found <= set(aioftrackjobs.__all__)
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in found)


def test_the_package_imports_without_any_extra() -> None:
    code = (
        "import sys\n"
        "for name in ('lark', 'rich', 'sqlalchemy', 'starlette', 'typer', 'uvicorn', 'trio'):\n"
        "    sys.modules[name] = None\n"
        "import aioftrackjobs\n"
        "print(aioftrackjobs.__version__)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == aioftrackjobs.__version__


def public_callables() -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield all public functions, classes and methods of this package."""
    for module in (aioftrackjobs, actions, testing, devserver, recovery, retry):
        for name in getattr(module, "__all__", vars(module)):
            found = getattr(module, name)
            if not callable(found) or not str(found.__module__).startswith("aioftrackjobs"):
                continue
            yield name, found
            for method, value in vars(found).items() if inspect.isclass(found) else ():
                function = inspect.unwrap(getattr(value, "__func__", value))
                if callable(function) and (method == "__init__" or not method.startswith("_")):
                    yield f"{name}.{method}", function


def test_help_shows_no_addresses_and_no_private_objects() -> None:
    shown = {}
    for name, function in public_callables():
        with suppress(ValueError):  # enumerations and protocols have no signature
            shown[name] = str(inspect.signature(function)) + pydoc.plain(pydoc.render_doc(function))

    assert len(shown) > 150
    assert [name for name, text in shown.items() if " at 0x" in text] == []
    private = re.compile(r"= ?<(?!factory>|class |unrepresentable>|JobStatus|Verdict|Signature)")
    assert [name for name, text in shown.items() if private.search(text)] == []


def test_every_public_name_is_in_the_reference() -> None:
    reference = Path(__file__).parents[2] / "docs" / "reference"
    text = (reference / "api.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\.\. auto\w+:: aioftrackjobs\.(\w+)$", text, re.MULTILINE))

    assert "automodule:: aioftrackjobs.errors" in (reference / "errors.md").read_text()
    assert shown | set(errors.__all__) | {"__version__"} >= set(aioftrackjobs.__all__)


def test_every_public_name_has_a_docstring_with_an_example() -> None:
    texts = {
        name: inspect.getdoc(getattr(aioftrackjobs, name)) or ""
        for name in aioftrackjobs.__all__
        if not name.startswith("__")
    }

    assert [
        name for name, text in texts.items() if "Example" not in text and "::\n" not in text
    ] == []
