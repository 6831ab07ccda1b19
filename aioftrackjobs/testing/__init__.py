"""ftrack servers for your tests, which can inject faults.

::

    async def test_hook_survives_a_lost_response(ftrack_server, ftrack_session):
        ftrack_server.faults.inject(Drop(applied=True), on="writes")
        await my_hook(ftrack_session)
        assert [job["status"] for job in ftrack_server.jobs()] == ["done"]

The package has a pytest plugin with these fixtures, which pytest finds by itself:

``ftrack_server``
    A :class:`FtrackServer` on a real socket. One server for the whole run, reset for each test.
``ftrack_session``
    An open ``AsyncSession`` on it. It works with pytest-asyncio, and with anyio's plugin.
``ftrack_credentials``
    URL, key and user for other clients: ``ftrack_api.Session(*ftrack_credentials)``.
``ftrack_environment``
    The same as environment variables, which are set during the test.
``ftrack_fake_server``
    A :class:`FakeServer`, which has no socket. A new one for each test.

A failing test shows the seed of its faults, and ``--ftrack-seed`` repeats them. Outside of pytest,
use :class:`FakeServer` and :class:`ServerProcess` as context managers. All of it needs the extra
``server``.
"""

from aioftrackjobs.devserver import Faults, Inspector
from aioftrackjobs.devserver.faults.kinds import (
    BadGateway,
    Corrupt,
    Delay,
    Drop,
    Duplicate,
    Fault,
    Hang,
    HtmlPage,
    Injected,
    LosePower,
    NotAtomic,
    Refuse,
    Reorder,
    Restart,
    SeenRequest,
    StopHeartbeats,
    Throttle,
    TooManyRequests,
    Truncate,
)
from aioftrackjobs.testing._fake import FakeServer, FakeTransport
from aioftrackjobs.testing._process import ServerProcess, ServerProcessError
from aioftrackjobs.testing._server import FtrackCredentials, FtrackServer

__all__ = [
    "BadGateway",
    "Corrupt",
    "Delay",
    "Drop",
    "Duplicate",
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
    "Reorder",
    "Restart",
    "SeenRequest",
    "ServerProcess",
    "ServerProcessError",
    "StopHeartbeats",
    "Throttle",
    "TooManyRequests",
    "Truncate",
]
