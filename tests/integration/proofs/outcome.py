"""What a proof found, and what all of them compare."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .secrets import SecretWatch

#: Violations that a report shows.
_SHOWN = 20


@dataclass(slots=True)
class Outcome:
    """The result of a proof.

    Attributes:
        title: What was to be proved.
        seed: What chance began with.
        figures: What was counted, by what it is.
        violations: What does not hold.
        seconds: How long it took.
    """

    title: str
    seed: int
    figures: dict[str, object] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    def require(self, holds: bool, problem: str) -> None:
        """Note *problem* unless *holds* is true."""
        if not holds:
            self.violations.append(problem)

    def finish(self, watch: SecretWatch) -> Outcome:
        """Add what *watch* has found, and end."""
        self.seconds = time.monotonic() - self._started
        self.figures["log records searched for the key"] = watch.records
        self.figures["exceptions searched for the key"] = watch.exceptions
        self.violations += watch.leaks
        return self

    def __str__(self) -> str:
        verdict = f"{len(self.violations)} VIOLATIONS" if self.violations else "holds"
        lines = [f"{self.title}: {verdict} (seed {self.seed}, {self.seconds:.1f} s)"]
        lines += [f"  {name:<42} {figure:>12}" for name, figure in self.figures.items()]
        lines += [f"  ! {violation}" for violation in self.violations[:_SHOWN]]
        return "\n".join(lines)


def by_name(jobs: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return Jobs, as a test server gives them, by the description that they began with."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for job in jobs:
        name = job["data"].get("base_description", job["description"])
        found.setdefault(name, []).append(job)
    return found
