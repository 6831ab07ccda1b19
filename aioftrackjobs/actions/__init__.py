"""Actions of the web interface that run as Jobs.

::

    actions = Actions()

    @actions.action("Deliver", on="AssetVersion")
    async def deliver(launch: Launch, form: Delivery, job: RunningJob) -> str:
        ...
        return "3 versions delivered"

    async with AsyncSession() as session:
        await actions.serve(session)
"""

from aioftrackjobs.actions.launch import Launch
from aioftrackjobs.actions.ready_made import stop_my_jobs
from aioftrackjobs.actions.registry import Actions
from aioftrackjobs.actions.trial import LaunchOutcome

__all__ = ["Actions", "Launch", "LaunchOutcome", "stop_my_jobs"]
