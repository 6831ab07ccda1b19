"""Async Python SDK for ftrack Jobs: every Job gets a final status.

::

    async with AsyncSession() as session:
        async with job_context(session, description="Transcode sh010") as job:
            job.progress(0.5, "encoding")
            await job.attach("report.pdf")
"""

from importlib import import_module

from aioftrackjobs._version import __version__

TYPE_CHECKING = False  # as that of typing, whose import takes long
if TYPE_CHECKING:
    from aioftrackjobs.commands.execution import CommandResult
    from aioftrackjobs.commit.unit_of_work import UnitOfWork
    from aioftrackjobs.config.retry import RetryPolicy
    from aioftrackjobs.connection.health import Health
    from aioftrackjobs.entities.queries import Query
    from aioftrackjobs.errors import (
        ArgumentError,
        AuthenticationError,
        CommandFailedError,
        CommitUncertainError,
        ComponentInLocationError,
        ComponentNotInLocationError,
        ConfigurationError,
        ConnectError,
        DuplicateEntryError,
        EntityError,
        EventQueueFullError,
        EventTimeoutError,
        FileChangedError,
        FtrackJobsError,
        ImmutableAttributeError,
        InvalidKeyError,
        InvalidValueError,
        JobDeletedError,
        JobOwnedError,
        JobStoppedError,
        MalformedResponseError,
        MissingExtraError,
        MissingFileError,
        MultipleResultsFoundError,
        NoResultFoundError,
        NotLoadedError,
        PermissionDeniedError,
        QueryParameterError,
        QuerySyntaxError,
        ServerError,
        SessionStateError,
        TransferError,
        TransportError,
        UnknownAttributeError,
        UnknownEntityTypeError,
        UnserialisableValueError,
        UnsupportedLocationError,
        UnsupportedPlatformError,
        ValidationError,
    )
    from aioftrackjobs.jobs.keys import JobKey, job_key
    from aioftrackjobs.jobs.reports import Stage
    from aioftrackjobs.jobs.stopping import StopRequest
    from aioftrackjobs.models import (
        Change,
        Component,
        ComponentLocation,
        ContainerComponent,
        Entity,
        FileComponent,
        Job,
        JobComponent,
        JobState,
        JobStatus,
        Location,
        SequenceComponent,
        User,
    )
    from aioftrackjobs.protocol.criteria import Attribute, Condition
    from aioftrackjobs.protocol.operations import Create, Delete, Update
    from aioftrackjobs.running.command_jobs import run_command
    from aioftrackjobs.running.recovery import RecoveredJob, Recovery, Verdict, recover
    from aioftrackjobs.running.running_job import (
        JobLogFilter,
        RunningJob,
        current_job,
        job_context,
    )
    from aioftrackjobs.running.signals import shutdown_on_signals
    from aioftrackjobs.session import AsyncSession
    from aioftrackjobs.transfers.structures import ComponentPlace

__all__ = [
    "ArgumentError",
    "AsyncSession",
    "Attribute",
    "AuthenticationError",
    "Change",
    "CommandFailedError",
    "CommandResult",
    "CommitUncertainError",
    "Component",
    "ComponentInLocationError",
    "ComponentLocation",
    "ComponentNotInLocationError",
    "ComponentPlace",
    "Condition",
    "ConfigurationError",
    "ConnectError",
    "ContainerComponent",
    "Create",
    "Delete",
    "DuplicateEntryError",
    "Entity",
    "EntityError",
    "EventQueueFullError",
    "EventTimeoutError",
    "FileChangedError",
    "FileComponent",
    "FtrackJobsError",
    "Health",
    "ImmutableAttributeError",
    "InvalidKeyError",
    "InvalidValueError",
    "Job",
    "JobComponent",
    "JobDeletedError",
    "JobKey",
    "JobLogFilter",
    "JobOwnedError",
    "JobState",
    "JobStatus",
    "JobStoppedError",
    "Location",
    "MalformedResponseError",
    "MissingExtraError",
    "MissingFileError",
    "MultipleResultsFoundError",
    "NoResultFoundError",
    "NotLoadedError",
    "PermissionDeniedError",
    "Query",
    "QueryParameterError",
    "QuerySyntaxError",
    "RecoveredJob",
    "Recovery",
    "RetryPolicy",
    "RunningJob",
    "SequenceComponent",
    "ServerError",
    "SessionStateError",
    "Stage",
    "StopRequest",
    "TransferError",
    "TransportError",
    "UnitOfWork",
    "UnknownAttributeError",
    "UnknownEntityTypeError",
    "UnserialisableValueError",
    "UnsupportedLocationError",
    "UnsupportedPlatformError",
    "Update",
    "User",
    "ValidationError",
    "Verdict",
    "__version__",
    "current_job",
    "job_context",
    "job_key",
    "recover",
    "run_command",
    "shutdown_on_signals",
]

#: The module of each name, which is imported when the name is first used: pytest imports this
#: package in every run to find its plugin, and must not wait for modules that are not used. Names
#: that are not listed are in errors.
_MODULES = {
    "AsyncSession": "session",
    "Attribute": "protocol.criteria",
    "Change": "models",
    "CommandResult": "commands.execution",
    "Component": "models",
    "ComponentLocation": "models",
    "ComponentPlace": "transfers.structures",
    "Condition": "protocol.criteria",
    "ContainerComponent": "models",
    "Create": "protocol.operations",
    "Delete": "protocol.operations",
    "Entity": "models",
    "FileComponent": "models",
    "Health": "connection.health",
    "Job": "models",
    "JobComponent": "models",
    "JobKey": "jobs.keys",
    "JobState": "models",
    "JobStatus": "models",
    "Location": "models",
    "Query": "entities.queries",
    "RecoveredJob": "running.recovery",
    "Recovery": "running.recovery",
    "RetryPolicy": "config.retry",
    "RunningJob": "running.running_job",
    "Stage": "jobs.reports",
    "SequenceComponent": "models",
    "StopRequest": "jobs.stopping",
    "UnitOfWork": "commit.unit_of_work",
    "Update": "protocol.operations",
    "User": "models",
    "Verdict": "running.recovery",
    "JobLogFilter": "running.running_job",
    "current_job": "running.running_job",
    "job_context": "running.running_job",
    "job_key": "jobs.keys",
    "recover": "running.recovery",
    "run_command": "running.command_jobs",
    "shutdown_on_signals": "running.signals",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
