"""What users of the last version would notice of the public names: run by `nox -s api`.

    python tests/typing/api_changes.py [REVISION]

A name is public if it is in ``__all__`` of the package or of one of the modules listed below; where
its code is does not matter. Griffe compares them with those of the latest tag ``v*``, or of another
revision.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import griffe

ROOT = Path(__file__).parents[2]
PACKAGE = "aioftrackjobs"
COLOURS = re.compile(r"\x1b\[\d+m")
#: The modules below it whose ``__all__`` is public; the first is the package.
PUBLIC = ("", "actions", "blocking", "devserver", "errors", "events", "testing")


def latest_version() -> str | None:
    """Return the newest tag of a version that this revision comes after; None if there is none."""
    command = ["git", "describe", "--tags", "--abbrev=0", "--match=v*", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def public_names(package: griffe.Module) -> griffe.Module:
    """Return a module with all public names, each with its definition, wherever that is."""
    collection = package.modules_collection
    names = griffe.Module(PACKAGE, filepath=ROOT / PACKAGE, modules_collection=collection)
    for place in PUBLIC:
        module = package.members.get(place) if place else package
        if isinstance(module, griffe.Module):
            for name in map(str, module.exports or ()):
                member = module.members.get(name)
                if member is not None:
                    found = member.final_target if isinstance(member, griffe.Alias) else member
                    names.members[f"{place}.{name}".lstrip(".")] = found
    return names


def changes(old: griffe.Module, new: griffe.Module) -> Iterator[str]:
    """Yield what would break programs that use public names of *old*."""
    before, after = public_names(old), public_names(new)
    yield from (f"{name}: it is gone" for name in before.members if name not in after.members)
    for breakage in griffe.find_breaking_changes(before, after):
        if breakage.obj.canonical_path != PACKAGE:
            yield COLOURS.sub("", breakage.explain(griffe.ExplanationStyle.ONE_LINE))


def load(revision: str | None) -> griffe.Module:
    """Return the package as it is in a revision, or in this folder."""
    if revision is None:
        return cast(
            "griffe.Module", griffe.load(PACKAGE, search_paths=[ROOT], try_relative_path=False)
        )
    found = griffe.load_git(PACKAGE, ref=revision, repo=ROOT, try_relative_path=False)
    return cast("griffe.Module", found)


def main(given: str | None) -> str | None:
    """Return the changes, one on each line, or None."""
    revision = given or latest_version()
    if revision is None:
        print("Nothing was released yet, and can break: name a revision.")  # noqa: T201
        return None
    return "\n".join(sorted(set(changes(load(revision), load(None))))) or None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
