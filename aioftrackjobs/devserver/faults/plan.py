"""Planning faults: which fault is injected into which request, the same for the same seed."""

from __future__ import annotations

import random
import secrets
import threading
from dataclasses import dataclass

from aioftrackjobs.devserver.faults import kinds

_SEED_BITS = 32


class MatcherError(Exception):
    """A function that selects the requests for a fault has failed."""


@dataclass(slots=True, eq=False)
class Rule:
    """A planned fault.

    Attributes:
        chance: Random numbers of this rule alone, so that other rules do not influence it.
        left: How often it is still injected; None without end.
    """

    fault: kinds.Fault
    matches: kinds.Matcher
    chance: random.Random
    probability: float
    left: int | None


class Faults:
    """The planned faults of a server, and the injected ones.

    ::

        server.faults.inject(Drop(applied=True), on="writes")      # the next commit
        server.faults.inject(Refuse("ValidationError"), times=2)   # the next two batches
        server.faults.inject(Delay(0.2), probability=0.1)          # each tenth request or so
        ...
        assert [each.fault for each in server.faults.injected] == [...]

    At most one fault is injected into a request: of those that are due, the one that was planned
    first. With the same seed, plan and order of requests, the same faults are injected into the
    same requests. All methods may be used from any thread.

    Args:
        seed: Seed of the random numbers; a random one if not given.
        own_process: Whether the server has a process of its own, which may be killed.
    """

    def __init__(self, seed: int | None = None, *, own_process: bool = False) -> None:
        self._own_process = own_process
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._injected: list[kinds.Injected] = []
        self._planned = 0
        self._seed = secrets.randbits(_SEED_BITS) if seed is None else seed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} seed={self.seed}: {len(self.injected)} injected>"

    @property
    def seed(self) -> int:
        """The seed; with the same one, the same faults are injected again."""
        return self._seed

    @property
    def injected(self) -> tuple[kinds.Injected, ...]:
        """The faults that were injected, in order."""
        return tuple(self._injected)

    @property
    def planned(self) -> tuple[kinds.Fault, ...]:
        """The faults that may still be injected, in the order in which they were planned."""
        return tuple(rule.fault for rule in list(self._rules) if rule.left != 0)

    def inject(
        self,
        fault: kinds.Fault,
        *,
        times: int | None = None,
        probability: float | None = None,
        on: kinds.On | None = None,
    ) -> None:
        """Plan a fault: for the next request, unless the arguments say otherwise.

        Args:
            fault: The fault.
            times: Number of requests at most; 1 if *probability* is not given either.
            probability: Share of the requests, more than 0, at most 1.
            on: Which requests: ``"any"``, ``"calls"`` (batches of operations), ``"reads"`` or
                ``"writes"`` of these, ``"uploads"``, ``"downloads"``, ``"events"`` that the hub
                sends to a client, ``"heartbeats"``, or a function that takes a
                :class:`SeenRequest`. If not given, those that *fault* is made for.

        Raises:
            ValueError: If an argument is wrong, or *fault* would kill a process that is not the
                server's own.
        """
        if isinstance(fault, kinds.LosePower) and not self._own_process:
            raise ValueError(
                "this server shares its process with other code, which would be killed too; "
                "use aioftrackjobs.testing.ServerProcess, or serve --fault"
            )
        if times is not None and times < 1:
            raise ValueError("times must be 1 or more")
        if probability is not None and not 0 < probability <= 1:
            raise ValueError("probability must be more than 0, and 1 at most")
        left = 1 if times is None and probability is None else times
        matches = kinds.matcher_of(fault.on if on is None else on)
        with self._lock:
            chance = random.Random(f"{self._seed}/{self._planned}")  # noqa: S311 - to be repeated
            self._planned += 1
            share = 1.0 if probability is None else probability
            self._rules.append(Rule(fault, matches, chance, share, left))

    def clear(self) -> None:
        """Remove all planned faults; :attr:`injected` stays."""
        with self._lock:
            self._rules.clear()

    def reset(self, seed: int | None = None) -> None:
        """Start again with nothing planned, nothing injected, and the random numbers.

        Args:
            seed: A new seed; the same as before if not given.
        """
        with self._lock:
            self._rules.clear()
            self._injected.clear()
            self._planned = 0
            self._seed = self._seed if seed is None else seed

    def due(self, request: kinds.SeenRequest) -> Due | None:
        """Return the fault for *request*, which counts as injected from now on; None for none."""
        with self._lock:
            rule = next((rule for rule in self._rules if _is_due(rule, request)), None)
            if rule is None:
                return None
            if rule.left is not None:
                rule.left -= 1
            injected = kinds.Injected(rule.fault, request)
            self._injected.append(injected)
            return Due(rule, injected, rule.fault)

    def withdraw(self, due: Due) -> None:
        """Take back a fault that could not be injected into its request."""
        with self._lock:
            self._injected = [each for each in self._injected if each is not due.injected]
            if due.rule.left is not None:
                due.rule.left += 1

    def report(self) -> str:
        """Return the seed and the injected faults, for the output of a failing test."""
        happened = "".join(f"\n{index}. {each}" for index, each in enumerate(self.injected, 1))
        return f"seed {self.seed}; injected: {happened or 'nothing'}"


@dataclass(frozen=True, slots=True)
class Due:
    """A fault that is due for a request."""

    rule: Rule
    injected: kinds.Injected
    fault: kinds.Fault


def _is_due(rule: Rule, request: kinds.SeenRequest) -> bool:
    if rule.left == 0:
        return False
    try:
        if not rule.fault.fits(request) or not rule.matches(request):
            return False
    except Exception as exc:
        reason = f"{type(exc).__name__}: {exc}"
        raise MatcherError(
            f"the function that selects requests for {rule.fault} has failed: {reason}"
        ) from exc
    # Drawn for each matching request, so that the sequence depends on nothing else.
    return rule.chance.random() < rule.probability
