"""Sends a group of commits in one request, and finds the outcome of each.

Three things can happen to a request besides its success, and each leads to other actions:

- **It did not leave, or the server is busy.** Nothing was applied. After a pause the same group is
  sent again, until the retry policy allows no further attempt.
- **Its response was lost.** The server may have applied it. To send it again blindly could apply it
  twice: a second create is refused as a duplicate, and an update could overwrite a newer value. So
  the :class:`Reconciler` first asks which entities exist, and only what is missing is sent again.
- **The server refused it.** A batch is refused as a whole, although only one commit may be at
  fault, and the error does not say which one. So the group is *bisected*: each half is sent by
  itself, until the commit at fault is alone, and its caller gets the error. One bad commit among n
  costs about 2 log2 n more requests, and the commits of other callers are applied. Because it is
  not known whether every server rolls back what it refuses, the Reconciler asks here, too.

Source:
    docs/protocol.md, section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar

import anyio

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.commit.api_client import ApiClient
from aioftrackjobs.commit.reconciler import Reconciler, key_was_taken, may_concern_one_commit
from aioftrackjobs.commit.request import (
    NotApplied,
    Outcome,
    PendingRequest,
    Unknown,
    WithdrawnError,
)
from aioftrackjobs.config.retry import Backoff, Pauses, RetryPolicy
from aioftrackjobs.errors import (
    AuthenticationError,
    ConnectError,
    DuplicateEntryError,
    FtrackJobsError,
    PermissionDeniedError,
    QuerySyntaxError,
    ServerError,
    TransportError,
    ValidationError,
)
from aioftrackjobs.protocol.operations import Create, Operation
from aioftrackjobs.protocol.results import AnyOperation
from aioftrackjobs.protocol.wire import is_foreign, join_batches

logger: SafeLogger = SafeLogger(__name__)

E = TypeVar("E", bound=FtrackJobsError)

# What few requests have. Groups are large, and so it is searched for without a loop.
_end_of, _doubt = attrgetter("outcome"), attrgetter("uncertain_because")
_limit, _given_up = attrgetter("send_within"), attrgetter("is_abandoned")

#: Ends a request with an outcome.
End: TypeAlias = Callable[[PendingRequest, Outcome], None]

#: Refusals that do not depend on the order of the operations in a batch.
_INDEPENDENT_OF_ORDER = (
    AuthenticationError,
    DuplicateEntryError,
    PermissionDeniedError,
    QuerySyntaxError,
    ValidationError,
)


class BatchSender:
    """Sends requests, and ends those whose outcome becomes known.

    Args:
        api: Makes the API calls.
        end: Called with each outcome.
        retry: For how long, and how often, a request is repeated after a transient failure.
        pauses: Pauses between the attempts of all requests of the session.
        note_lost: Called with the operations of each attempt that had no response.
    """

    def __init__(
        self,
        api: ApiClient,
        end: End,
        retry: RetryPolicy,
        pauses: Pauses,
        note_lost: Callable[[Sequence[Operation]], object] = lambda _: None,
    ) -> None:
        self._api = api
        self._reconciler = Reconciler(api)
        self._end = end
        self._retry = retry
        self._pauses = pauses
        self._note_lost = note_lost
        self._withdrawals: set[Withdrawal] = set()

    def stop_unneeded(self) -> None:
        """Stop what is being done for groups that were withdrawn: one more request was."""
        for each in tuple(self._withdrawals):
            each.stop_if_unneeded()

    async def send(self, group: Sequence[PendingRequest]) -> Sequence[Sequence[PendingRequest]]:
        """Send *group* in one request, and again while that may help; raises no error of it.

        Returns:
            The groups to send next: if it was refused, its halves.
        """
        began, backoff = self._retry.clock(), None
        group = _not_ended(group)
        withdrawal = Withdrawal(group, self._withdrawals)
        while group:
            try:
                group, results = await self._attempt(group, withdrawal)
            except WithdrawnError:
                group = _not_ended(group)
            except (ServerError, TransportError) as exc:
                group = _not_ended(group)
                backoff = backoff or self._retry.backoff(began)
                self._note_failure(exc, group)
                if not any(request.outcome is None for request in group):
                    return ()
                if exc.is_retryable and not backoff.is_begun and self._retry.budget:
                    logger.warning(
                        "trying again for %(seconds)g s: %(error)s",
                        seconds=self._retry.budget,
                        error=exc,
                    )
                again = exc.is_retryable
                with withdrawal.pausing():
                    again = again and await self._pauses.wait(backoff, exc.retry_after)
                group = _not_ended(group)
                if not again:
                    return await self._give_up(group, exc, backoff)
            except FtrackJobsError as exc:  # it cannot be encoded
                for request in group:
                    self._end(request, _outcome_after(_own(exc, group), request))
                return ()
            else:
                end = 0
                for request in group:
                    start, end = end, end + request.count_left
                    self._end(request, request.applied(results[start:end]))
                return ()
        return ()

    async def _attempt(
        self, group: Sequence[PendingRequest], withdrawal: Withdrawal
    ) -> tuple[Sequence[PendingRequest], list[Any]]:
        """Send what is left of *group* once; return what has left, and its results."""
        group = await self._resolve_uncertain(group)
        if group and group[0].has_chosen_keys:
            with withdrawal.sending(group, marks_sent=False):
                await self._reconciler.check_chosen_keys(group, withdrawal)
            group = _not_ended(group)  # its caller may have withdrawn it meanwhile
        if any(map(_limit, group)):
            for request in group:
                if request.is_stale:
                    request.withdraw()
        if not (group := _not_ended(group)):
            return (), []
        body = join_batches([each.encoded or each.encode() for each in group])
        with withdrawal.sending(group):
            results = await self._api.send(body, withdrawal.operations, withdrawal)
        return withdrawal.group, results

    def _note_failure(
        self, error: ServerError | TransportError, group: Sequence[PendingRequest]
    ) -> None:
        """Note what *error* says about *group*: not sent, or uncertain; end what ends by it."""
        for request in group:
            request.last_error = error
            is_refusal = isinstance(error, ServerError) and not error.is_retryable
            if request.is_sent and not isinstance(error, (ConnectError, ServerError)):
                self._note_lost(request.operations_left)
            if request.send_within is not None and not is_refusal:
                self._end(request, _outcome_after(_own(error, group), request))
                continue
            if not request.is_sent:
                continue  # a query that had to come first has failed
            if is_refusal:
                continue  # a part may be applied: until that is known, it cannot be withdrawn
            if isinstance(error, (ConnectError, ServerError)):
                if request.uncertain_because is None:
                    request.free_keys = None  # others may use the keys before the next attempt
                request.note_unsent()
            elif not request.is_repeatable:
                self._end(request, Unknown(error))
            elif request.operations:
                request.uncertain_because = error
            else:
                request.note_unsent()  # a read, which has changed nothing

    async def _resolve_uncertain(self, group: Sequence[PendingRequest]) -> Sequence[PendingRequest]:
        """Ask what the server has done of uncertain requests; return what is left to send."""
        if not any(map(_doubt, group)):
            return group
        uncertain = [request for request in group if request.uncertain_because is not None]
        await self._reconciler.reconcile(uncertain)
        return self._end_done(group)

    async def _give_up(
        self,
        group: Sequence[PendingRequest],
        error: ServerError | TransportError,
        backoff: Backoff,
    ) -> Sequence[Sequence[PendingRequest]]:
        """End *group* because of *error*; if a part of it may succeed, return that to be sent."""
        left = _not_ended(group)
        if isinstance(error, ServerError):
            if may_concern_one_commit(error):
                if len(left) > 1:
                    return await self._bisect(left, backoff)
            elif is_foreign(error) and not error.is_retryable:
                left = await self._resolve_foreign_refusal(left, error)
            rests: list[Sequence[PendingRequest]] = []
            for request in left:
                outcome = await self._outcome_of_refusal(request, _own(error, left), backoff)
                if outcome is None:
                    rests.append([request])
                else:
                    self._end(request, outcome)
            return rests
        for request in left:
            self._end(request, _outcome_after(_own(error, left), request))
        return ()

    async def _resolve_foreign_refusal(
        self, group: Sequence[PendingRequest], refusal: ServerError
    ) -> Sequence[PendingRequest]:
        """End those of *group* that were applied although a proxy refused; return the others.

        It may have refused the response rather than the request. If it refuses the query, too, the
        server is not reached, and has applied nothing. If nothing is found that was created, the
        refusal stands; if something to be deleted is not found, that may be its work.
        """
        doubtful = [
            each
            for each in group
            if each.is_sent
            and each.operations
            and each.send_within is None  # its caller reads and writes anew
            and each.uncertain_because is None
        ]
        for request in doubtful:
            request.uncertain_because = TransportError(f"no response of the server: {refusal}")
        unclear: Sequence[PendingRequest] = ()
        try:
            _, unclear = await self._reconciler.reconcile(doubtful, refusal)
            unclear = [each for each in unclear if each.deletes]
        except TransportError as exc:
            if not isinstance(exc.__cause__, ServerError):
                unclear = doubtful
        for request in doubtful:
            if request not in unclear:
                request.uncertain_because = None
        return self._end_done(group)

    async def _reconcile(
        self,
        group: Sequence[PendingRequest],
        backoff: Backoff,
        refusal: ServerError | None = None,
    ) -> tuple[bool, Sequence[PendingRequest]]:
        """Ask what the server has done of *group*, again after a transient failure."""
        while True:
            try:
                return await self._reconciler.reconcile(group, refusal)
            except TransportError as exc:
                if not (exc.is_retryable and await self._pauses.wait(backoff, exc.retry_after)):
                    raise

    async def _bisect(
        self, group: Sequence[PendingRequest], backoff: Backoff
    ) -> Sequence[Sequence[PendingRequest]]:
        """Return the halves of a refused *group*, without what was applied all the same."""
        try:
            _, unanswered = await self._reconcile(group, backoff)
        except TransportError as exc:
            for request in group:  # to send it again could apply it twice
                self._end(request, Unknown(exc))
            return ()
        for request in unanswered:
            request.uncertain_because = request.uncertain_because or TransportError(
                "the server does not say what it did"
            )
        for request in group:
            request.is_sent = request.uncertain_because is not None
        left = self._end_done(group)
        middle = (len(left) + 1) // 2
        return [half for half in (left[:middle], left[middle:]) if half]

    def _end_done(self, group: Sequence[PendingRequest]) -> Sequence[PendingRequest]:
        """End the requests of which nothing is left to send, and return the others."""
        left: list[PendingRequest] = []
        for request in group:
            if request.outcome is not None:
                continue  # withdrawn meanwhile
            if request.count_left:
                left.append(request)
            else:
                self._end(request, request.applied([]))
        return left

    async def _outcome_of_refusal(
        self, request: PendingRequest, refusal: ServerError, backoff: Backoff
    ) -> Outcome | None:
        """Return the outcome of a *request* that was refused alone.

        None if a rest of it is left to send: the server may have refused what it has done already.
        """
        if not may_concern_one_commit(refusal):
            return _outcome_after(refusal, request)
        is_plain = request.count_left == 1 and request.uncertain_because is None
        if is_plain:
            request.free_keys = frozenset()  # a single operation that was refused created nothing
            if not any(isinstance(each, Create) for each in request.operations_left):
                return NotApplied(refusal, request.done)
        try:
            any_done, unclear = await self._reconcile([request], backoff, refusal)
            if any_done:
                return None if request.count_left else request.applied([])
            if not isinstance(refusal, _INDEPENDENT_OF_ORDER) and not unclear:
                return await self._reconciler.send_in_stages(request, refusal)
        except TransportError as exc:
            return NotApplied(refusal, request.done) if is_plain else Unknown(exc)
        if unclear:
            return _outcome_after(refusal, request)
        is_duplicate = isinstance(refusal, DuplicateEntryError)
        is_uncertain = request.uncertain_because is not None
        if is_duplicate and is_uncertain and not key_was_taken(request):
            return _outcome_after(refusal, request)  # what it duplicates may be its own
        return NotApplied(refusal, request.done)


class Withdrawal:
    """Stops the sending of a group whose requests are withdrawn before they leave.

    A caller that is cancelled withdraws its request if the server cannot have received it. Then
    no caller waits for what the worker does for it: a pause before another attempt, or a connection
    that takes long. If all of a group is withdrawn, this ends at once, and the worker is free. If a
    part of it is, the connection is made for the others, and they are sent without that part.

    It follows the group through all attempts, and is the ``Departure`` of their requests.

    Args:
        group: What the first attempt sends.
        active: Contains it while there is something to stop.

    Attributes:
        group: What the current attempt sends.
        replaced: The body that has left, if that was not all of what the attempt began with.
    """

    def __init__(self, group: Sequence[PendingRequest], active: set[Withdrawal]) -> None:
        self.group: Sequence[PendingRequest] = group
        self.replaced: bytes | None = None
        self._active = active
        self._scope: anyio.CancelScope | None = None
        self._may_cancel = False
        self._marks_sent = False
        self._has_left = False

    def operations(self) -> Sequence[AnyOperation]:
        """Return what the group is sent as, in its order."""
        if len(self.group) == 1:
            return self.group[0].call or self.group[0].operations_left
        return [each for request in self.group for each in request.operations_left]

    def stop_if_unneeded(self) -> None:
        """Stop what is being done for the group if all of it has ended.

        That is safe, too, when it has left: then the connection is closed.
        """
        may_cancel = self._may_cancel or self._has_left
        if may_cancel and self._scope is not None and self._is_over:
            self._scope.cancel()

    @property
    def _is_over(self) -> bool:
        return all(request.outcome is not None for request in self.group)

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """End the block early if all of the group is withdrawn."""
        with anyio.CancelScope() as scope:
            self._scope, self._may_cancel = scope, True
            self._active.add(self)
            try:
                self.stop_if_unneeded()
                yield
            finally:
                self._may_cancel = False
                self._active.discard(self)

    @contextmanager
    def sending(
        self, group: Sequence[PendingRequest], *, marks_sent: bool = True
    ) -> Iterator[None]:
        """Follow a request that the block sends, until it leaves.

        Args:
            group: What it carries.
            marks_sent: Whether it carries the group itself, and no question about it.

        Raises:
            WithdrawnError: All of the group, or a part of a fixed body, was withdrawn.
        """
        self.group, self.replaced = group, None
        self._marks_sent, self._has_left = marks_sent, False
        # From the beginning, as a client of the caller's may not report when the request leaves.
        self._mark_sent()
        self._active.add(self)
        with anyio.CancelScope() as self._scope:
            try:
                yield
                return
            finally:
                self._may_cancel = False
                self._active.discard(self)
        raise WithdrawnError("withdrawn before it was sent")

    def _mark_sent(self) -> None:
        if self._marks_sent:
            for request in self.group:
                request.is_sent = True

    # As the departure of a request

    def wait(self) -> None:
        """Note that it has not left, and may be cancelled until the next call."""
        if not self._has_left:
            for request in self.group if self._marks_sent else ():
                if request.is_abandoned or request.uncertain_because is not None:
                    request.note_unsent()
                else:  # as nearly all
                    request.is_sent = False
            self.proceed()
            self._may_cancel = True

    def proceed(self) -> None:
        """Note that it must not be cancelled from now on.

        Raises:
            WithdrawnError: All of the group was withdrawn.
        """
        self._may_cancel = False
        if not self._has_left and self._is_over:
            raise WithdrawnError("withdrawn before it was sent")

    def leave(self, *, may_replace: bool) -> bytes | None:
        """Note that its first byte leaves; return the body of what is left, if it is not all.

        Raises:
            WithdrawnError: All of the group was withdrawn, or some of it, and the body is fixed.
        """
        self._may_cancel = False
        if self._has_left:
            return None
        if self._marks_sent and (any(map(_limit, self.group)) or any(map(_given_up, self.group))):
            for request in self.group:
                # Meanwhile, when it was not known that it waits.
                if request.is_stale or request.is_abandoned:
                    request.is_abandoned = True
                    request.note_unsent()
        left = _not_ended(self.group)
        is_changed = self._marks_sent and len(left) < len(self.group)
        if not left or (is_changed and not may_replace):
            raise WithdrawnError("withdrawn before it was sent")
        self._has_left = True
        if is_changed:
            self.group = left
            self.replaced = join_batches([request.encode() for request in left])
        self._mark_sent()
        return self.replaced


def _not_ended(group: Sequence[PendingRequest]) -> Sequence[PendingRequest]:
    """Return those of *group* that have not ended: others may have been withdrawn meanwhile."""
    if not any(map(_end_of, group)):
        return group
    return [request for request in group if request.outcome is None]


def _own(error: E, group: Sequence[PendingRequest]) -> E:
    """Return an error for one of *group*: raising an error adds its caller's frames to it."""
    return error if len(group) == 1 else copy(error)


def _outcome_after(error: FtrackJobsError, request: PendingRequest) -> Outcome:
    """Return the outcome of *request* if it is not sent again after *error*."""
    if request.uncertain_because is not None:
        return Unknown(request.uncertain_because)
    if isinstance(error, TransportError) and not isinstance(error, ConnectError):
        if request.is_sent or request.call:
            return Unknown(error)
        error = ConnectError(f"it was not sent, since a query before it failed: {error}")
    return NotApplied(error, request.done)
