"""Asks the server which entities exist, so that each commit gets its true outcome.

After a request was refused, or its response was lost, it is not known what the server has applied.
But the client makes the ids: no other entity can have an id that was made for one entity.
So the server is asked which of the entities exist. If a created one exists, the create was
applied; if a deleted one is gone, the delete was. Updates set absolute values, and are sent again.

What the server does not answer is not known. Nor is an entity gone because one query does not find
it: its answer may be that to another request, or queries may hide the entity. So, unless the same
answer shows others of its type, it is asked for twice; and if no query has ever shown it
(``Delete.unseen``), the delete is sent again. A delete that was refused, and was never in doubt, is
not done, whatever a query says; unless what its commit has created shows that the server does not
roll back what it has refused.

Under a key that a *user* chose there may be the entity of another client. A commit with such keys
travels alone, and before it is sent the server is asked which of them are free:

- The key was taken before: the entity is not ours, even with the very same values. Keys serve as
  locks, which only one client may get.
- It was free before, and the values are those that were sent: ours. Another client may have
  used the same key for the same values in between; that is taken for ours too, since it is what
  the caller wanted.
- It was free before, and the values differ: ours and changed since, or another client's. That
  cannot be known, so the commit stays uncertain.
- The server does not say which keys are free: if the response is lost, the values decide alone.

A commit that was refused because of the order of its operations is sent in stages, and what these
have created is deleted if one of them is refused.

Source:
    docs/protocol.md, section 2.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from aioftrackjobs.commit.api_client import ApiClient, Sending
from aioftrackjobs.commit.request import NotApplied, Outcome, PendingRequest
from aioftrackjobs.errors import (
    AuthenticationError,
    FtrackJobsError,
    MalformedResponseError,
    ServerError,
    TransportError,
)
from aioftrackjobs.protocol.operations import Create, Delete, Operation, encode_operation
from aioftrackjobs.protocol.reconciliation import (
    ExistenceQuery,
    Findings,
    absence_queries,
    any_query,
    chosen_key_queries,
    existence_queries,
    is_ambiguous,
    stages,
    untouched,
)
from aioftrackjobs.protocol.values import Reference
from aioftrackjobs.protocol.wire import is_foreign

#: HTTP status code: the request is too big.
_TOO_BIG = 413


class Reconciler:
    """Asks about requests, and notes in them what is known.

    Args:
        api: Makes the API calls.
    """

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    async def check_chosen_keys(
        self, group: Sequence[PendingRequest], departure: Sending | None = None
    ) -> None:
        """Ask which chosen keys are free, before *group* is sent.

        Args:
            group: Requests that are about to be sent.
            departure: Stops the question if they are withdrawn.

        Raises:
            ServerError: The server refuses all queries.
            TransportError: No complete response came back.
        """
        for request in group:
            if not request.has_chosen_keys or request.free_keys is not None:
                continue
            if request.uncertain_because is not None:
                continue  # it was sent before, so that the key may be taken by itself
            findings = await self._ask(chosen_key_queries(request.operations), departure)
            if request.chosen.isdisjoint(findings.unanswered):
                request.free_keys = request.chosen - findings.found.keys()

    async def reconcile(
        self, group: Sequence[PendingRequest], refusal: ServerError | None = None
    ) -> tuple[bool, Sequence[PendingRequest]]:
        """Mark as done what the server has done of *group*.

        Args:
            group: The requests.
            refusal: How the server has refused the only one of *group*; None if it has not.

        Returns:
            Whether it has done anything, and the requests about which it refuses queries; after a
            *refusal*, those that an earlier attempt may have applied.

        Raises:
            TransportError: No complete response came back, or all queries were refused.
        """
        operations = [each for request in group for each in request.operations_left]
        in_doubt = any(request.uncertain_because is not None for request in group)
        with_updates = refusal is not None and in_doubt
        queries = existence_queries(operations, with_updates=with_updates)
        if not queries:
            return False, ()
        try:
            findings = await self._ask(queries)
            if gone := findings.missing(each.target for each in operations if _deletes(each)):
                again = await self._ask(absence_queries(gone))
                findings.found |= again.found
                findings.unanswered |= again.unanswered
            if refusal is not None:
                # A server may have applied a part of what it has refused.
                doubtful = [
                    each.target
                    for each in operations
                    if (isinstance(each, Create) and in_doubt)
                    or (isinstance(each, Delete) and each.unseen and len(operations) > 1)
                ]
                await self._look_for_types(findings, findings.missing(doubtful))
        except ServerError as exc:
            unanswered = TransportError(f"the server does not say what it did: {exc}")
            unanswered.retry_after, unanswered.is_retryable = exc.retry_after, exc.is_retryable
            raise unanswered from exc
        any_done = False
        for request in group:
            any_done |= request.note_found(findings, refusal)
            created = request.may_have_created
            ambiguous = is_ambiguous(request.operations_left, findings.found, created)
            if ambiguous and request.uncertain_because is None:
                request.uncertain_because = TransportError(
                    "an entity that it creates exists by now, with other values"
                )
        if refusal is not None:
            return any_done, [each for each in group if each.is_unclear(findings, refusal)]
        silent = findings.unanswered
        return any_done, [
            request
            for request in group
            if any(each.target in silent for each in request.operations_left)
        ]

    async def _ask(
        self, queries: Sequence[ExistenceQuery], departure: Sending | None = None
    ) -> Findings:
        """Send *queries* in one request; if it is refused, in halves, to find those at fault."""
        findings = Findings()
        left = [queries]
        while left:
            part = left.pop()
            try:
                results = await self._api.call([each.operation for each in part], departure)
            except ServerError as exc:
                if not may_concern_one_commit(exc):
                    raise
                if len(part) == 1:
                    findings.unanswered.update(part[0].references)
                else:
                    middle = len(part) // 2
                    left += [part[:middle], part[middle:]]
                continue
            for query, result in zip(part, results, strict=True):
                try:
                    more = findings.add(query, result)
                except (LookupError, TypeError):
                    problem = "a query's result has no rows, or those of another query"
                    raise MalformedResponseError(problem, status=200) from None
                left += [[more]] if more is not None else []
        return findings

    async def _look_for_types(self, findings: Findings, missing: Iterable[Reference]) -> None:
        """Note in *findings* of which types of the *missing* ones queries show any entity."""
        kinds = {each.entity_type: each for each in missing}
        for kind, each in kinds.items():
            with suppress(ServerError):
                (result,) = await self._api.call([any_query(each)])
                findings.shown.update([kind] if result["data"] else [])

    async def send_in_stages(self, request: PendingRequest, refusal: ServerError) -> Outcome:
        """Send a refused *request* in parts, so that no part refers to what it creates itself.

        A server may apply the operations of one batch in another order than they are in.
        """
        parts = stages(request.operations_left)
        if len(parts) <= 1:
            return NotApplied(refusal, request.done)
        sent: list[Operation] = []
        results: list[Any] = []
        for part in parts:
            try:
                results += await self._api.call([encode_operation(each) for each in part])
            except ServerError as exc:
                return await self._undo_stages(request, sent, exc)
            sent += part
        return request.applied(results)

    async def _undo_stages(
        self, request: PendingRequest, sent: Sequence[Operation], refusal: ServerError
    ) -> Outcome:
        """Delete what the stages *sent* of a commit have created: it is all or nothing.

        Their updates and deletes cannot be undone, and count as done.
        """
        created = [operation.target for operation in sent if isinstance(operation, Create)]
        parts = {id(operation) for operation in sent}
        left = [each for each in request.operations_left if id(each) not in parts]
        request.note_done(untouched(sent, left))
        deletes = [encode_operation(Delete(target)) for target in reversed(created)]
        if deletes:
            try:
                await self._api.call(deletes)
            except FtrackJobsError:
                await self.reconcile([request])
        return NotApplied(refusal, request.done)


def may_concern_one_commit(refusal: ServerError) -> bool:
    """Return whether *refusal* of a group may be about one commit rather than all requests."""
    if isinstance(refusal, AuthenticationError) or refusal.is_retryable:
        return False
    return not is_foreign(refusal) or refusal.status == _TOO_BIG


def _deletes(operation: Operation) -> bool:
    return isinstance(operation, Delete)


def key_was_taken(request: PendingRequest) -> bool:
    """Return whether all keys of *request* that users chose are known to have been taken."""
    if not request.has_chosen_keys or request.free_keys is None:
        return False
    return request.chosen.isdisjoint(request.free_keys)
