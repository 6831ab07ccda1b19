"""The packaging: what is imported is declared, and the client needs few other packages."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from aioftrackjobs import __version__

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
#: Imported only where they run already: a user's event loop and notebook, and the test runner that
#: loads the pytest plugin.
HOSTS = {"ipython", "pytest", "pytest-asyncio", "trio"}
#: Packages whose modules have other names.
OTHERWISE_NAMED = {"opentelemetry": "opentelemetry-api"}
#: The official client brings 32.
MOST_PACKAGES = 13


def third_party_imports() -> dict[str, list[str]]:
    """Return the packages that are imported anywhere, each with the modules that do it."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "aioftrackjobs").rglob("*.py")):
        for name in imports_of(ast.parse(path.read_text("utf-8"))):
            if name not in sys.stdlib_module_names and name != "aioftrackjobs":
                module = path.relative_to(ROOT).as_posix()
                package = canonicalize_name(OTHERWISE_NAMED.get(name, name))
                found.setdefault(package, []).append(module)
    return found


def imports_of(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]


def names_of(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def tree_of(requirements: Iterable[str], extras: Iterable[str] = ()) -> set[str]:
    """Return the names of *requirements*, and of all that those need, on this Python."""
    found: set[str] = set()
    waiting = [(Requirement(text), frozenset(extras)) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement, wanted = waiting.pop()
        if not applies(requirement, wanted):
            continue
        name = canonicalize_name(requirement.name)
        found.add(name)
        node = (name, frozenset(requirement.extras))
        if node not in seen:
            seen.add(node)
            waiting += [(Requirement(text), node[1]) for text in requires(name) or ()]
    return found


def applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def test_each_package_that_is_imported_is_declared() -> None:
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    declared = names_of(PROJECT["dependencies"]).union(*map(names_of, extras.values()), HOSTS)

    imported = third_party_imports()

    assert {"anyio", "httpx", "pydantic", "starlette"} <= imported.keys()
    assert {name: by for name, by in imported.items() if name not in declared} == {}


def test_the_version_is_the_same_everywhere() -> None:
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    newest = re.search(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)

    assert cited
    assert newest
    assert [cited[1], newest[1]] == [__version__, __version__]


def test_each_dependency_of_the_client_is_imported() -> None:
    assert names_of(PROJECT["dependencies"]) <= third_party_imports().keys()


def test_the_client_installs_no_more_packages_than_the_readme_says() -> None:
    stated = re.search(r"installs (\d+) packages", (ROOT / "README.md").read_text("utf-8"))
    assert stated

    tree = tree_of(PROJECT["dependencies"])

    assert {"anyio", "httpcore", "pydantic-core"} <= tree
    assert len(tree) <= int(stated[1]) <= MOST_PACKAGES, sorted(tree)
