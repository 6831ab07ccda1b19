"""The event loop of a session, and the tasks that run in it in the background of the caller's.

:mod:`._event_loop` has what differs between asyncio and trio, and refuses the use of a session in
another event loop, thread or process. :mod:`._tasks` runs the background tasks.
"""

from aioftrackjobs.background._event_loop import (
    EventLoop,
    Waiter,
    loop_caller,
    mark_coroutine_functions,
    running_event_loop,
    turn_end_caller,
)
from aioftrackjobs.background._tasks import BackgroundTasks, KeepAlive

__all__ = [
    "BackgroundTasks",
    "EventLoop",
    "KeepAlive",
    "Waiter",
    "loop_caller",
    "mark_coroutine_functions",
    "running_event_loop",
    "turn_end_caller",
]
