"""Which fault happens to which request: planned from any thread, the same for the same seed."""

from __future__ import annotations

import random
import secrets
import threading
from dataclasses import dataclass

from aioftrackjobs.devserver.faults.kinds import (
    Fault,
    Injected,
    LosePower,
    Matcher,
    On,
    SeenRequest,
    matcher_of,
)

_SEED_BITS = 32


class MatcherError(Exception):
    """A function that was to tell which requests a fault is for has failed.

    Attributes:
        fault: What was planned.
        reason: How it failed.
    """

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(fault, reason)
        self.fault = fault
        self.reason = reason

    def __str__(self) -> str:
        return f"what tells which requests {self.fault} is for has failed: {self.reason}"


@dataclass(slots=True, eq=False)
class Rule:
    """A planned fault.

    Attributes:
        chance: Of this rule alone, so that the requests which others are for change nothing.
        left: How often it may still happen; None without end.
    """

    fault: Fault
    matches: Matcher
    chance: random.Random
    probability: float
    left: int | None


class Faults:
    """What is planned to go wrong with a server, and what did.

    ::

        server.faults.inject(Drop(applied=True), on="writes")      # the next commit
        server.faults.inject(Refuse("ValidationError"), times=2)   # the next two batches
        server.faults.inject(Delay(0.2), probability=0.1)          # each tenth request or so
        ...
        assert [each.fault for each in server.faults.injected] == [...]

    At most one fault happens to a request: of those that are due, the one that was planned
    first. With the same seed, plan and order of requests, the same faults happen to the same
    requests. All of it may be used from any thread.

    Args:
        seed: What chance begins with; a random one if not given.
        own_process: Whether the server has a process of its own, which may be killed.
    """

    def __init__(self, seed: int | None = None, *, own_process: bool = False) -> None:
        self._own_process = own_process
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._injected: list[Injected] = []
        self._planned = 0
        self._seed = secrets.randbits(_SEED_BITS) if seed is None else seed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} seed={self.seed}: {len(self.injected)} injected>"

    @property
    def seed(self) -> int:
        """What chance began with; give it again to have the same happen again."""
        return self._seed

    @property
    def injected(self) -> tuple[Injected, ...]:
        """What happened, in order."""
        return tuple(self._injected)

    @property
    def planned(self) -> tuple[Fault, ...]:
        """The faults that may still happen, in the order in which they were planned."""
        return tuple(rule.fault for rule in list(self._rules) if rule.left != 0)

    def inject(
        self,
        fault: Fault,
        *,
        times: int | None = None,
        probability: float | None = None,
        on: On | None = None,
    ) -> None:
        """Have *fault* happen to requests: to the next one, unless more is said.

        Args:
            fault: What happens.
            times: To how many requests at most; 1 if *probability* is not given either.
            probability: Share of the requests it happens to, more than 0, at most 1.
            on: Which requests: ``"any"``, ``"calls"`` (batches of operations), ``"reads"`` or
                ``"writes"`` of these, ``"uploads"``, ``"downloads"``, or a function that is
                given a :class:`SeenRequest`. If not given, those that *fault* is made for.

        Raises:
            ValueError: If this makes no plan, or *fault* would kill a process that is not the
                server's own.
        """
        if isinstance(fault, LosePower) and not self._own_process:
            raise ValueError(
                "this server shares its process with others, who would lose power too; "
                "use aioftrackjobs.testing.ServerProcess, or serve --fault"
            )
        if times is not None and times < 1:
            raise ValueError("times must be 1 or more")
        if probability is not None and not 0 < probability <= 1:
            raise ValueError("probability must be more than 0, and 1 at most")
        left = 1 if times is None and probability is None else times
        matches = matcher_of(fault.on if on is None else on)
        with self._lock:
            chance = random.Random(f"{self._seed}/{self._planned}")  # noqa: S311 - to be repeated
            self._planned += 1
            share = 1.0 if probability is None else probability
            self._rules.append(Rule(fault, matches, chance, share, left))

    def clear(self) -> None:
        """Have nothing more go wrong; what did stays in :attr:`injected`."""
        with self._lock:
            self._rules.clear()

    def reset(self, seed: int | None = None) -> None:
        """Begin anew: nothing planned, nothing injected, and chance from its beginning.

        Args:
            seed: What chance begins with from now on; as before if not given.
        """
        with self._lock:
            self._rules.clear()
            self._injected.clear()
            self._planned = 0
            self._seed = self._seed if seed is None else seed

    def due(self, request: SeenRequest) -> Due | None:
        """Return the fault that happens to *request*, which counts as injected from now on.

        Raises:
            MatcherError: If a matcher of the user's fails.
        """
        with self._lock:
            rule = next((rule for rule in self._rules if _is_due(rule, request)), None)
            if rule is None:
                return None
            if rule.left is not None:
                rule.left -= 1
            injected = Injected(rule.fault, request)
            self._injected.append(injected)
            return Due(rule, injected)

    def withdraw(self, due: Due) -> None:
        """Take back a fault for which its request gave no occasion."""
        with self._lock:
            self._injected = [each for each in self._injected if each is not due.injected]
            if due.rule.left is not None:
                due.rule.left += 1

    def report(self) -> str:
        """Return what a failing test should show: the seed, and what happened."""
        happened = "".join(f"\n{index}. {each}" for index, each in enumerate(self.injected, 1))
        return f"seed {self.seed}; injected: {happened or 'nothing'}"


@dataclass(frozen=True, slots=True)
class Due:
    """A fault that happens to a request."""

    rule: Rule
    injected: Injected

    @property
    def fault(self) -> Fault:
        """What happens."""
        return self.rule.fault


def _is_due(rule: Rule, request: SeenRequest) -> bool:
    if rule.left == 0:
        return False
    try:
        if not rule.matches(request):
            return False
    except Exception as exc:
        raise MatcherError(rule.fault, f"{type(exc).__name__}: {exc}") from exc
    # Drawn for each matching request, so that the sequence does not hang on anything else.
    return rule.chance.random() < rule.probability
