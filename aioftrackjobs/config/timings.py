"""The times that a session waits by itself, and a size, so that tests can make them smaller."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, eq=False, slots=True)
class Timings:
    """Times that are no part of the public API: users need not, and should not, tune them.

    Attributes:
        closing_grace: Seconds that closing waits for the responses that other tasks wait for. What
            takes longer is cut off.
        closing_wait: Seconds after which closing gives up what these tasks have not sent yet,
            their transfers, and what a later session can do as well.
        closing_linger: Seconds that closing waits at last for responses that no task waits for.
        closing_turns: Turns of the event loop in which a task that was just cancelled comes to
            report its end, before closing looks for Jobs that are still running.
        max_hold: Seconds for which a commit request that is in progress holds back the commits
            that are queued meanwhile, so that they share the next request. A request that takes
            longer holds back no more.
        batching_turns: Turns of the event loop for which a request waits before it takes what is
            queued: the tasks that one response has woken commit again within them. If nothing
            else happens, that takes microseconds.
        expedited_pause: Seconds that a pause before another attempt takes at most when there is a
            reason to try soon.
        journal_stall_limit: Seconds that a task waits for the journal's file, at most.
        journal_retry: Seconds for which a journal's file that failed is left alone.
        journal_busy_timeout: Seconds to wait for other processes that write the journal's file.
        replay_interval: Seconds until the journal is read again, if processes that left entries
            may be dead or alive, or if the server refused a request.
        job_read_interval: Seconds from one read of the Jobs that run to the next, at most. It shows
            that another client has stopped or deleted one. Jobs that report progress are read more
            often.
        job_poll_first: Seconds from one read of Jobs that are waited for to the next, after one of
            them has changed. Each pause is longer than the one before.
        job_poll_longest: The longest of these pauses.
        job_poll_limit: Seconds that a read of up to 500 such Jobs may take, before it is repeated
            over a new connection.
        data_send_limit: Seconds from the read of a Job until the write that is made from it leaves,
            at most. What takes longer is read again, and may then take twice as long.
        refusal_limit: Seconds for which the journal keeps a final status that the server refuses,
            if the refusal may pass.
        last_request_delay: Seconds after the end of a process in which its last request may still
            be applied. It may register an upload.
        reserved_limit: Seconds that a request in the lane for urgent ones takes at most.
        response_size: Bytes of a response to an API call, at most, when it is decoded. A query with
            a bigger one is an error; 500 rows rarely have tens of megabytes.
        claim_wait: Seconds from the claim to a Job until it is read back, at least. Another
            session that found the Job free at the same moment has written its own claim by then.
        join_wait: Seconds that a command waits for the Job that it is run as, to join it.
        event_acknowledgement: Seconds after which a subscription counts as made if the event hub
            has not acknowledged it.
        event_refusal_pause: Seconds between two attempts to connect to an event hub that refuses
            the credentials.
        event_outbox: Events that wait to be sent to the event hub, at most.
        event_cursor_interval: Seconds from one read of the ``Event`` table to the next, while no
            event of the hub wakes it.
    """

    closing_grace: float = 10.0
    closing_wait: float = 1.0
    closing_linger: float = 0.5
    closing_turns: int = 5
    max_hold: float = 0.25
    batching_turns: int = 3
    expedited_pause: float = 1.0
    journal_stall_limit: float = 5.0
    journal_retry: float = 10.0
    journal_busy_timeout: float = 0.8
    replay_interval: float = 60.0
    job_read_interval: float = 5.0
    job_poll_first: float = 1.0
    job_poll_longest: float = 10.0
    job_poll_limit: float = 10.0
    data_send_limit: float = 2.0
    refusal_limit: float = 86_400.0
    last_request_delay: float = 120.0
    reserved_limit: float = 20.0
    response_size: int = 128 * 1024 * 1024
    claim_wait: float = 0.5
    join_wait: float = 15.0
    event_acknowledgement: float = 10.0
    event_refusal_pause: float = 30.0
    event_outbox: int = 1000
    event_cursor_interval: float = 60.0

    def __repr__(self) -> str:
        """Return only what differs from the defaults, for a short signature of the session."""
        changed = (
            f"{each.name}={getattr(self, each.name)!r}"
            for each in fields(self)
            if getattr(self, each.name) != each.default
        )
        return f"{type(self).__name__}({', '.join(changed)})"


#: The times that every session uses outside of tests.
DEFAULT_TIMINGS = Timings()
