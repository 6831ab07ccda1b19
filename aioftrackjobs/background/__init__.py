"""The event loop of a session, and the tasks that run in it in the background of the caller's.

:mod:`._event_loop` has what differs between asyncio and trio, and refuses the use of a session in
another event loop, thread or process. :mod:`._tasks` runs the background tasks; :mod:`._faults` and
:mod:`._texts` keep a fault of one piece of work, or an odd value, from ending all others.
"""

from aioftrackjobs.background._event_loop import (
    EventLoop,
    Waiter,
    loop_caller,
    mark_coroutine_functions,
    running_event_loop,
    turn_end_caller,
)
from aioftrackjobs.background._faults import SafeLogger, Surviving, is_cancellation_of_task
from aioftrackjobs.background._tasks import BackgroundTasks, KeepAlive
from aioftrackjobs.background._texts import (
    format_error,
    leaves_of,
    show_value,
    text_of,
    type_name,
)

__all__ = [
    "BackgroundTasks",
    "EventLoop",
    "KeepAlive",
    "SafeLogger",
    "Surviving",
    "Waiter",
    "format_error",
    "is_cancellation_of_task",
    "leaves_of",
    "loop_caller",
    "mark_coroutine_functions",
    "running_event_loop",
    "show_value",
    "text_of",
    "turn_end_caller",
    "type_name",
]
