"""The public surface: what is listed is there, and what is there is listed."""

from __future__ import annotations

import inspect
import subprocess
import sys

import aioftrackjobs
from aioftrackjobs import errors, testing
from aioftrackjobs.errors import FtrackJobsError


def test_all_lists_exactly_the_public_names() -> None:
    names = {
        name
        for name, value in vars(aioftrackjobs).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }

    assert set(aioftrackjobs.__all__) - {"__version__"} == names


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
