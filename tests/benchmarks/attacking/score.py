"""What an attack has found: counts, and the first examples."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Examples that are kept of one kind.
_EXAMPLES = 5


@dataclass(slots=True)
class Score:
    """The outcome of one kind of attack.

    Attributes:
        attempts: Faults, or rounds of them.
        operations: Jobs, changes or files that were attacked.
        lost: Changes that were reported as done and are not so, and files that are gone.
        false: What was reported otherwise than it is.
        left: Jobs left running, calls that did not end, and processes.
        examples: The first violations.
    """

    attempts: int = 0
    operations: int = 0
    lost: int = 0
    false: int = 0
    left: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, kind: str, text: str) -> None:
        """Count a violation: "lost", "false" or "left"."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < _EXAMPLES:
            self.examples.append(f"{kind}: {text}")

    @property
    def violations(self) -> int:
        """How many violations there are."""
        return self.lost + self.false + self.left

    def add(self, other: Score) -> None:
        """Count what another round has found."""
        for name in ("attempts", "operations", "lost", "false", "left"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.examples += other.examples[: _EXAMPLES - len(self.examples)]
