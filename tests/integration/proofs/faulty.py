"""Jobs on a server that fails a tenth of all requests, half of them after it applied them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from aioftrackjobs import AsyncSession, job_context
from aioftrackjobs.devserver import running
from aioftrackjobs.testing import (
    BadGateway,
    Delay,
    Drop,
    Fault,
    Faults,
    FtrackServer,
    SeenRequest,
    TooManyRequests,
    Truncate,
)

from .outcome import Outcome, by_name
from .secrets import KEY, SecretWatch

#: Each fault hits as many requests as any other.
FAULTS: Sequence[Fault] = (
    Drop(applied=False),
    BadGateway(applied=False),
    TooManyRequests(retry_after=0),
    Delay(0.05, applied=False),
    Drop(applied=True),
    BadGateway(applied=True),
    Truncate(),
    Delay(0.05, applied=True),
)
#: Probability of each fault, given that none before it hit the request.
SHARE = 0.1
_EACH = 1 - (1 - SHARE) ** (1 / len(FAULTS))

#: Jobs that run at the same time.
AT_ONCE = 200

#: Seconds for the end of a Job. Time is not what is proved, and the machine may be busy.
_GRACE = 120

#: One Job in so many attaches a file of so many bytes, which travels in parts.
_LARGE_EVERY, _LARGE = 200, 17 << 20


class MishapError(Exception):
    """What a Job fails with on purpose."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one Job does, and how it ends.

    Attributes:
        name: Its text.
        status: How it ends.
        raises: Whether it fails by an exception, which leaves a traceback as an attachment.
        size: Of the file that it attaches; None for no file.
    """

    name: str
    status: str
    raises: bool
    size: int | None

    @classmethod
    def of(cls, number: int, seed: int) -> Plan:
        """Return the plan that follows from *seed*."""
        chance = random.Random(f"{seed}/{number}")
        ending = chance.choice(["done", "done", "done", "failed", "raised"])
        size = chance.randint(0, 100_000) if chance.random() < 0.2 else None
        if number % _LARGE_EVERY == 0:
            size = _LARGE
        status = "done" if ending == "done" else "failed"
        return cls(f"Job {number}", status, ending == "raised", size)

    @property
    def content(self) -> bytes:
        """The bytes of its file, which no other file has."""
        return random.Random(self.name).randbytes(self.size or 0)


async def prove_faults(jobs: int, seed: int) -> Outcome:
    """Run *jobs* Jobs, and compare all that the server holds with the plans."""
    outcome = Outcome(f"{jobs} Jobs through a server that spoils 10 % of all requests", seed)
    requests = 0

    def counted(_: SeenRequest) -> bool:
        nonlocal requests
        requests += 1
        return True

    plans = [Plan.of(number, seed) for number in range(jobs)]
    with SecretWatch(KEY) as watch:
        faults = Faults(seed)
        for index, fault in enumerate(FAULTS):
            # The first fault is considered for each request.
            faults.inject(fault, probability=_EACH, on="any" if index else counted)
        async with running(api_key=KEY, faults=faults, empty=True) as handle:
            server = FtrackServer(handle)
            async with server.session() as session:
                limiter = anyio.CapacityLimiter(AT_ONCE)
                async with anyio.create_task_group() as group:
                    for plan in plans:
                        group.start_soon(_run, session, plan, limiter, outcome, watch)
                watch.search("the session's health", repr(session.health))
            injected = Counter(type(each.fault).__name__ for each in faults.injected)
            applied = sum(_is_applied(each.fault) for each in faults.injected)
            _check(server, plans, outcome, watch)
    outcome.figures |= {
        "requests": requests,
        "of them spoiled": f"{injected.total() / requests:.1%}",
        "  after doing what they ask for": applied,
        **{f"  {name}": count for name, count in sorted(injected.items())},
    }
    return outcome.finish(watch)


def _is_applied(fault: Fault) -> bool:
    return isinstance(fault, Truncate) or getattr(fault, "applied", False)


async def _run(
    session: AsyncSession,
    plan: Plan,
    limiter: anyio.CapacityLimiter,
    outcome: Outcome,
    watch: SecretWatch,
) -> None:
    async with limiter:
        try:
            async with job_context(
                session, description=plan.name, interval=0.05, grace=_GRACE
            ) as job:
                job.progress(0.5)
                if plan.size is not None:
                    await job.attach(plan.content, name="result.bin")
                if plan.raises:
                    raise MishapError("on purpose")
                if plan.status == "failed":
                    job.fail("on purpose")
        except MishapError as error:
            watch.see(error)
        except Exception as error:  # noqa: BLE001 - no other may come out
            watch.see(error)
            outcome.violations.append(f"{plan.name} was left by {error!r}")


def _check(
    server: FtrackServer, plans: Sequence[Plan], outcome: Outcome, watch: SecretWatch
) -> None:
    held = server.jobs()
    found = by_name(held)
    outcome.require(len(held) == len(plans), f"there are {len(held)} Jobs, not {len(plans)}")
    for plan in plans:
        jobs = found.get(plan.name, [])
        states = [job["status"] for job in jobs]
        outcome.require(states == [plan.status], f"{plan.name} is {states}, not {plan.status}")
        for job in jobs:
            _check_text(plan, job, outcome)
            _check_files(plan, job, server, outcome, watch)
    attached = sum(len(job["attachments"]) for job in held)
    files = len(server.find("select id from FileComponent"))
    outcome.require(files == attached, f"there are {files} files for {attached} attachments")
    states_of_all = Counter(job["status"] for job in held)
    outcome.figures |= {
        "Jobs done": states_of_all["done"],
        "Jobs failed": states_of_all["failed"],
        "attachments": attached,
    }


def _check_text(plan: Plan, job: Mapping[str, Any], outcome: Outcome) -> None:
    reason = "MishapError: on purpose" if plan.raises else "on purpose"
    failed = f" (50 %) - failed: {reason}" if plan.status == "failed" else ""
    wanted = f"{plan.name}{failed}"
    outcome.require(job["description"] == wanted, f"{job['description']!r} is not {wanted!r}")


def _check_files(
    plan: Plan, job: Mapping[str, Any], server: FtrackServer, outcome: Outcome, watch: SecretWatch
) -> None:
    names = sorted(each["name"] for each in job["attachments"])
    wanted = ["result.bin"] * (plan.size is not None) + ["traceback.txt"] * plan.raises
    outcome.require(names == wanted, f"{plan.name} has the attachments {names}, not {wanted}")
    for each in job["attachments"]:
        content = server.content(each["id"])
        if each["name"] == "result.bin":
            outcome.require(content == plan.content, f"{plan.name}: its attachment is damaged")
        else:
            watch.search("a traceback", content.decode())
            outcome.require(b"MishapError" in content, f"{plan.name}: its traceback is damaged")
