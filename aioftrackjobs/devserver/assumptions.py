"""What this server does where the behaviour of a real one is not known.

``docs/protocol.md`` marks these as unknown or inferred; for each, the server does what is
easiest for clients and contradicts no source. They stand in one place so that they can be checked:
in ``assumptions.txt``, one a paragraph.
"""

from __future__ import annotations

from importlib.resources import files

_TEXT = files(__package__).joinpath("assumptions.txt").read_text(encoding="utf-8")
ASSUMPTIONS: tuple[str, ...] = tuple(" ".join(each.split()) for each in _TEXT.split("\n\n"))
