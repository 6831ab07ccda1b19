"""Pictures of a terminal, drawn from what a program has written to it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

#: What rich writes besides text and colours: ends of lines, and what moves or hides the cursor.
_CONTROLS = re.compile(r"(\r?\n|\r|\x1b\[\d*A|\x1b\[2K|\x1b\[\?25[hl])")


def screen(written: str) -> list[str]:
    """Return the lines, with their colours, that a terminal shows at the end."""
    lines, row = [""], 0
    for part in _CONTROLS.split(written):
        if part.endswith("\n"):
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part.startswith("\x1b[") and part.endswith("A"):
            row = max(row - int(part[2:-1] or 1), 0)
        elif not _CONTROLS.fullmatch(part):
            lines[row] += part
    return lines


def draw(command: str, lines: Sequence[str], width: int) -> str:
    """Return an SVG of a terminal in which *command* has written *lines*."""
    console = Console(record=True, width=width, file=io.StringIO(), highlight=False)
    console.print(f"[bold]$[/] {command}")
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=True)
    # Without the fonts, which the reader's browser would fetch from elsewhere.
    return re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=""), flags=re.DOTALL)
