"""Writes ``aioftrackjobs/blocking/__init__.pyi``, what type checkers see of blocking code.

    python tests/typing/blocking_stub.py

The classes of blocking code take their methods from the async ones when they are imported; this
writes down which, with the first sentence of each docstring. A test compares the file with it.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, get_overloads

from aioftrackjobs import blocking
from aioftrackjobs.blocking._proxies import blocking_signature
from aioftrackjobs.models import Entity

STUB = Path(blocking.__file__).with_suffix(".pyi")

#: Where names are from that replace those of async code.
_REPLACING = {
    "AbstractContextManager": "contextlib",
    "Event": "aioftrackjobs.events",
    "Gap": "aioftrackjobs.events",
    "Iterator": "collections.abc",
    "JobState": "aioftrackjobs.models",
    "Lagged": "aioftrackjobs.events",
    "overload": "typing",
}
#: Methods with underscores that users call; only sessions are made by them.
_SPECIAL = ("__enter__", "__exit__", "__call__", "__iter__")


def blocking_stub() -> str:
    """Return the text of the stub, not yet formatted."""
    return Stub().text()


class Stub:
    """The stub that is being written, and what it has to import."""

    def __init__(self) -> None:
        self._imports = defaultdict[str, set[str]](set)
        self._variables = dict[str, str]()  # type variables

    def text(self) -> str:
        exported = [getattr(blocking, name) for name in sorted(blocking.__all__)]
        functions = filter(inspect.isfunction, exported)
        classes = [each for each in exported if inspect.isclass(each)]
        blocks = [
            *(
                "\n".join(self._entity(each) if issubclass(each, Entity) else self._class(each))
                for each in classes
            ),
            *("\n".join(self._function(each, "")) for each in functions),
        ]
        modules = [name for name, names in self._imports.items() if name in names]
        imports = [
            *(f"import {name}" for name in sorted(modules)),
            *(
                f"from {name} import {', '.join(sorted(names - {name}))}"
                for name, names in sorted(self._imports.items(), key=_order)
                if names - {name}
            ),
        ]
        return "\n".join(
            [
                "# Written by tests/typing/blocking_stub.py; not to be edited.",
                '# mypy: disable-error-code="override"',  # what waits returns another type
                *imports,
                *(f"{name} = {value}" for name, value in sorted(self._variables.items())),
                *blocks,
                f"__all__ = {sorted(blocking.__all__)}",
                "",
            ]
        )

    def _entity(self, kind: type) -> Iterator[str]:
        """Write what the same class is for blocking code: its session waits in its methods."""
        self._imports["aioftrackjobs"].add("models")
        yield f"class {kind.__name__}(models.{kind.__name__}):"
        yield f'    """{summary(kind)}"""'
        for name, member in sorted(vars(kind).items()):
            signature = inspect.signature(member) if isinstance(member, FunctionType) else None
            if signature and str(signature.return_annotation).startswith("Coroutine["):
                yield from self._function(member, "    ", name, blocking_signature(member))

    def _class(self, kind: type) -> Iterator[str]:
        bases = ""
        for base in getattr(kind, "__orig_bases__", ()):
            if parameters := getattr(base, "__parameters__", ()):
                (variable,) = parameters
                bases = f"({self._names(f'Generic[{variable}]'.replace('~', ''), kind.__module__)})"
        yield f"class {kind.__name__}{bases}:"
        yield f'    """{summary(kind)}"""'
        for name, annotation in inspect.get_annotations(kind).items():
            if not name.startswith("_"):
                yield f"    {name}: {self._names(annotation, kind.__module__)}"
        special = [name for name in _SPECIAL if isinstance(getattr(kind, name, None), FunctionType)]
        if kind is blocking.Session:
            special.insert(0, "__init__")
        for name in [*special, *(name for name in dir(kind) if not name.startswith("_"))]:
            member = inspect.getattr_static(kind, name)
            if isinstance(member, property):
                yield from self._property(name, member)
            elif isinstance(member, FunctionType):
                yield from self._function(member, "    ", name)

    def _property(self, name: str, member: property) -> Iterator[str]:
        assert member.fget is not None
        signature = inspect.signature(member.fget)
        kind = self._names(str(signature.return_annotation), member.fget.__module__)
        yield "    @property"
        yield f"    def {name}(self) -> {kind}:"
        yield f'        """{summary(member)}"""'
        if member.fset is not None:
            yield f"    @{name}.setter"
            yield f"    def {name}(self, value: {kind}) -> None: ..."

    def _function(
        self,
        function: Any,
        indent: str,
        name: str | None = None,
        signature: inspect.Signature | None = None,
    ) -> Iterator[str]:
        name = name or function.__name__
        original = inspect.unwrap(function)
        signatures = [blocking_signature(each) for each in get_overloads(original)]
        for each in signatures or [signature or inspect.signature(function)]:
            if signatures:
                self._names("overload", __name__)
                yield f"{indent}@overload"
            parameters = ", ".join(self._parameters(each, original.__module__))
            kind = self._names(str(each.return_annotation), original.__module__)
            yield f"{indent}def {name}({parameters}) -> {kind}:"
            yield f"{indent}    " + (f'"""{summary(function)}"""' if function.__doc__ else "...")

    def _parameters(self, signature: inspect.Signature, module: str) -> Iterator[str]:
        before: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
        for each in signature.parameters.values():
            if before is each.POSITIONAL_ONLY and each.kind is not before:
                yield "/"
            if each.kind is each.KEYWORD_ONLY and before not in (each.kind, each.VAR_POSITIONAL):
                yield "*"
            before = each.kind
            is_several = each.kind is each.VAR_POSITIONAL
            stars = "*" if is_several else "**" if each.kind is each.VAR_KEYWORD else ""
            text = f"{stars}{each.name}"
            if each.annotation is not each.empty:
                text += f": {self._names(str(each.annotation), module, is_given=True)}"
            if each.default is not each.empty:
                is_plain = isinstance(each.default, (bool, int, float, str, tuple, type(None)))
                text += f" = {each.default!r}" if is_plain else " = ..."
            yield text
        if before is inspect.Parameter.POSITIONAL_ONLY:
            yield "/"

    def _names(self, annotation: str, module: str, *, is_given: bool = False) -> str:
        """Return *annotation*, as it is in *module*, when its names are imported.

        What is given to blocking code may have the types of async code: the classes are the same.
        """
        tree = ast.parse(annotation, mode="eval")
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                kind = getattr(blocking, node.id, None)
                if is_given and isinstance(kind, type) and issubclass(kind, Entity):
                    node.id = f"models.{node.id}"
                else:
                    node.id = self._import(node.id, module)
        return ast.unparse(tree)

    def _import(self, name: str, module: str) -> str:
        if hasattr(builtins, name) or name in blocking.__all__:
            return name
        places, variables = names_of(module)
        if name in variables:
            kind, text = variables[name]
            while self._variables.setdefault(name, text.format(name)) != text.format(name):
                name += "2"  # two modules have variables of this name
            self._names(text.format(name), module)
            self._imports["typing"].add(kind)
        elif name in _REPLACING:
            self._imports[_REPLACING[name]].add(name)
        else:
            place = places.get(name, module)
            is_model = place.startswith("aioftrackjobs.models.")  # whose modules are internal
            self._imports["aioftrackjobs.models" if is_model else place].add(name)
        return name


def _order(of_module: tuple[str, object]) -> tuple[bool, str]:
    """Return what sorts imports: those of this package last."""
    return of_module[0].startswith("aioftrackjobs"), of_module[0]


@cache
def names_of(module: str) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Return where a module has its names from, also for type checkers, and its type variables."""
    source = inspect.getsource(__import__(module, fromlist=["_"]))
    places, variables = dict[str, str](), dict[str, tuple[str, str]]()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=str(origin), names=names):
                places.update({each.name: origin for each in names})
            case ast.Import(names=names):
                places.update({each.name: each.name for each in names})
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Call(func=ast.Name(id="TypeVar" | "ParamSpec" as kind)) as value,
            ):
                value.args[0] = ast.Constant("{}")
                variables[name] = kind, ast.unparse(value)
    return places, variables


def summary(member: object) -> str:
    """Return the first sentence of a docstring, on one line."""
    text = inspect.getdoc(member) or ""
    return " ".join(text.partition("\n\n")[0].split())


if __name__ == "__main__":
    STUB.write_text(blocking_stub())
    if shutil.which("ruff"):
        subprocess.run(["ruff", "check", "--select=I", "--fix", "-q", STUB], check=True)
        subprocess.run(["ruff", "format", "-q", STUB], check=True)
