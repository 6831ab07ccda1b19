"""Checks that the module of ``aioftrackjobs models`` passes mypy in strict mode, and pyright.

    python tests/typing/check_models.py

It is written for the types of the embedded server, with a custom attribute, beside a program
whose mistakes the type checkers must find.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from aioftrackjobs.cli.models import models_module
from aioftrackjobs.devserver.schema.builtin import BUILTIN_SCHEMAS
from aioftrackjobs.protocol.custom_attributes import decode_configuration

PROGRAM = """
from aioftrackjobs import AsyncSession
import studio


async def main(session: AsyncSession) -> None:
    shot = await session.query(studio.Shot).one()
    shot.custom_attributes["fstart"] = 1001
    shot.custom_attributes["look"] = ["a"]
    shot.parent = studio.Sequence()
    shot.metadata["take"] = "3"
    if shot.name is not None:
        shot.name.upper()
    shot.nope  # wrong
    shot.custom_attributes["fstart"] = "x"  # wrong
    shot.custom_attributes["look"] = ["c"]  # wrong
    shot.custom_attributes["fstat"] = 1  # wrong
    shot.parent = studio.Status()  # wrong
"""


def main() -> None:
    """Run both type checkers; exit with 1 if they find other mistakes than those of the program."""
    configurations: list[dict[str, object]] = [
        {"id": "1", "key": "fstart", "default": 1, "type": {"name": "number"}, "config": "{}"},
        {"id": "2", "key": "look", "default": "a", "type": {"name": "enumerator"},
         "config": '{"data": [{"value": "a"}, {"value": "b"}]}'},
    ]  # fmt: skip
    rows = [{**each, "entity_type": "task"} for each in configurations]
    attributes = [each for row in rows if (each := decode_configuration(row)) is not None]
    documents = {each["id"]: each for each in BUILTIN_SCHEMAS}
    wrong = [n for n, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")]
    with tempfile.TemporaryDirectory() as folder:
        text = models_module(documents, attributes, "https://ftrack.test")
        Path(folder, "studio.py").write_text(text, encoding="utf-8")
        Path(folder, "program.py").write_text(PROGRAM, encoding="utf-8")
        for command in (
            ["mypy", "--strict", "--no-incremental", "--follow-imports=silent"],
            ["pyright", "--pythonpath", sys.executable],
        ):
            checked = subprocess.run(
                [*command, "studio.py", "program.py"],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            lines = checked.stdout.splitlines()
            errors = [line for line in lines if " error: " in line or " - error:" in line]
            numbers = [re.search(r"program\.py:(\d+)", line) for line in errors]
            found = sorted({int(number[1]) for number in numbers if number})
            others = [line for line, number in zip(errors, numbers, strict=True) if not number]
            if found != wrong or others:
                sys.exit(f"{command[0]}: errors in lines {found}, not {wrong}\n{checked.stdout}")
            sys.stdout.write(f"{command[0]} finds the {len(wrong)} mistakes, and no other.\n")


if __name__ == "__main__":
    main()
