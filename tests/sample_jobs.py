"""The Jobs on the pictures of the documentation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from aioftrackjobs import AsyncSession
from aioftrackjobs.devserver import ServerHandle
from tests.devserver.browsing import add_job, lease
from tests.devserver.caller import Caller

#: Status, user, seconds since it began and ended, text, progress or end, and more of its data.
JOBS: list[tuple[str, str, float, float, str, object, dict[str, Any]]] = [
    ("queued", "maya", 12, 0, "Render sh060 lighting", None, {}),
    ("queued", "noor", 44, 0, "Publish sq020 playlist", None, {}),
    ("running", "maya", 65, 0, "Transcode sh010 comp v012", (0.81, "frame 194 of 240"),
     {"lease": lease(170, "farm03")}),
    ("running", "maya", 190, 0, "Render sh020 lighting", (0.42, "frame 1042 of 1100"),
     {"lease": lease(150, "farm07")}),
    ("running", "noor", 900, 0, "Deliver episode 104", (0.07, "uploading 3 of 41"),
     {"lease": lease(120, "io01"), "stop": {"by": "maya", "reason": "wrong folder"}}),
    ("failed", "maya", 3700, 3500, "Render sh030 crowd", "OSError: [Errno 28] No space left", {}),
    ("running", "jenkins", 5200, 0, "Simulate sh045 river", (0.63, "step 630 of 1000"),
     {"lease": lease(-420, "farm11")}),
    ("failed", "noor", 9000, 8800, "Publish sh050 anim", "stopped by noor: wrong shot", {}),
    *(("done", ("maya", "noor", "developer")[n % 3], 11000 + n * 4000, 10900 + n * 4000,
       f"Transcode sh{100 + n * 10} comp v00{n % 7 + 1}", f"{n * 7 + 96} frames", {})
      for n in range(12)),
]  # fmt: skip

TRACEBACK = b"""Traceback (most recent call last):
  File "render.py", line 88, in render
    image.write(path)
  File "/opt/tools/exr.py", line 214, in write
    raise OSError(errno, text)
OSError: [Errno 28] No space left
"""


async def add_sample_jobs(server: ServerHandle, api: Caller) -> None:
    """Add Jobs of all kinds to *server*."""
    ids = dict[str, str]()
    for status, user, began, ended, base, shown, more in JOBS:
        text = base
        if isinstance(shown, tuple):
            text, more = (
                f"{base} ({shown[0] * 100:.0f} %, {shown[1]})",
                {**more, "progress": shown[0]},
            )
        elif shown:
            text = f"{base} - {'failed: ' if status == 'failed' else ''}{shown}"
        data = {"description": text, "base_description": base, **more}
        ids[base] = await add_job(api, status, user=user, ago=began, **data)
        if ended:
            at = (datetime.now(UTC) - timedelta(seconds=ended)).isoformat(timespec="seconds")
            time = {"__type__": "datetime", "value": at[:19]}
            await api.update("Job", ids[base], finished_at=time)
    files = {"Render sh030 crowd": ("traceback.txt", TRACEBACK)}
    files |= dict.fromkeys(list(ids)[8:12], ("report.pdf", b"x" * 120000))
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        for base, (name, content) in files.items():
            component = await session.create_component(content, name=name)
            session.create("JobComponent", {"job_id": ids[base], "component_id": component.id})
        await session.commit()
