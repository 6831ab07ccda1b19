"""For tests of what you build on ftrack Jobs: servers that are yours to break.

::

    async def test_hook_survives_a_lost_answer(ftrack_server, ftrack_session):
        ftrack_server.faults.inject(Drop(applied=True), on="writes")
        await my_hook(ftrack_session)
        assert [job["status"] for job in ftrack_server.jobs()] == ["done"]

The fixtures come with the package, as a plugin that pytest finds by itself:

``ftrack_server``
    A :class:`FtrackServer` on a real socket, one for the whole run, as new for each test.
``ftrack_session``
    An open ``AsyncSession`` on it; under pytest-asyncio, and anyio's plugin on asyncio and trio.
``ftrack_credentials``
    URL, key and user for other clients: ``ftrack_api.Session(*ftrack_credentials)``.
``ftrack_environment``
    The same as environment variables, set for the test.
``ftrack_fake_server``
    A :class:`FakeServer`, which has no socket; a new one for each test.

A failing test shows the seed of its faults; ``--ftrack-seed`` brings them back. Outside of pytest
:class:`FakeServer` and :class:`ServerProcess` are context managers. All of it needs the extra
``server``.
"""

from aioftrackjobs.devserver import Faults, Inspector
from aioftrackjobs.devserver.faults import (
    BadGateway,
    Corrupt,
    Delay,
    Drop,
    Fault,
    Hang,
    HtmlPage,
    Injected,
    LosePower,
    NotAtomic,
    Refuse,
    Restart,
    SeenRequest,
    Throttle,
    TooManyRequests,
    Truncate,
)
from aioftrackjobs.testing._credentials import FtrackCredentials
from aioftrackjobs.testing._fake import FakeServer, FakeTransport
from aioftrackjobs.testing._process import ServerProcess, ServerProcessError
from aioftrackjobs.testing._server import FtrackServer

__all__ = [
    "BadGateway",
    "Corrupt",
    "Delay",
    "Drop",
    "FakeServer",
    "FakeTransport",
    "Fault",
    "Faults",
    "FtrackCredentials",
    "FtrackServer",
    "Hang",
    "HtmlPage",
    "Injected",
    "Inspector",
    "LosePower",
    "NotAtomic",
    "Refuse",
    "Restart",
    "SeenRequest",
    "ServerProcess",
    "ServerProcessError",
    "Throttle",
    "TooManyRequests",
    "Truncate",
]
