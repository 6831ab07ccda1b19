# Written by tests/typing/blocking_stub.py; not to be edited.
# mypy: disable-error-code="override"
import os
from collections.abc import AsyncIterable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from os import PathLike
from pathlib import Path
from re import Pattern
from types import ModuleType, TracebackType
from typing import Any, Generic, Literal, ParamSpec, Self, TypeVar, overload
from uuid import UUID

from aioftrackjobs import models
from aioftrackjobs.commands.execution import CommandResult
from aioftrackjobs.commands.reporting import LogWhen
from aioftrackjobs.config.retry import RetryPolicy
from aioftrackjobs.config.timings import Timings
from aioftrackjobs.connection.health import EventHubHealth, Health
from aioftrackjobs.events import Event, Gap, Lagged
from aioftrackjobs.events.cursor import EventCursor
from aioftrackjobs.events.queue import Overflow
from aioftrackjobs.jobs.stopping import StopOn, StopRequest
from aioftrackjobs.models import Component, Entity, FileComponent, JobState, SequenceComponent, User
from aioftrackjobs.protocol.custom_attributes import CustomAttribute
from aioftrackjobs.protocol.operations import Operation
from aioftrackjobs.running.recovery import Recovery
from aioftrackjobs.session import Key
from aioftrackjobs.telemetry import Observer
from aioftrackjobs.transfers.content import Uploadable
from aioftrackjobs.transfers.control import ProgressCallback
from aioftrackjobs.transport import HttpClient, Transport

E = TypeVar("E", bound=Event)
E2 = TypeVar("E2", bound=Entity)
F = TypeVar("F", bound=Entity)
H = TypeVar("H", bound=Callable[..., object])
P = ParamSpec("P")
T = TypeVar("T")

class EventHub:
    """Listens to events of the server, and publishes events. See ``session.events``."""
    def health(self) -> EventHubHealth:
        """Return a snapshot of the hub, which ``session.health.events`` is, too."""
    @property
    def id(self) -> str:
        """The id of this hub, which is in the source of what it publishes."""
    @property
    def is_started(self) -> bool:
        """Whether the hub is connected, or connects again and again."""
    def off(self, function: Callable[..., Any]) -> None:
        """Call a decorated *function* no more; events that it is handling are handled to the end."""
    @overload
    def on(
        self,
        what: type[E],
        *,
        where: str | Callable[[E], bool] | None = None,
        concurrency: int = 4,
        key: Callable[[E], Hashable] | None = None,
        queue: int = 1000,
        on_gap: Callable[[Gap], object] | None = None,
        on_lag: Callable[[Lagged], object] | None = None,
        subscriber: Mapping[str, Any] | None = None,
    ) -> Callable[[Callable[[E], object]], Callable[[E], object]]:
        """Call the decorated function for each event, before or after the session is opened."""
    @overload
    def on(
        self,
        what: str,
        *,
        where: str | Callable[[Event], bool] | None = None,
        concurrency: int = 4,
        key: Callable[[Event], Hashable] | None = None,
        queue: int = 1000,
        on_gap: Callable[[Gap], object] | None = None,
        on_lag: Callable[[Lagged], object] | None = None,
        subscriber: Mapping[str, Any] | None = None,
    ) -> Callable[[H], H]:
        """Call the decorated function for each event, before or after the session is opened."""
    def publish(
        self,
        topic: str,
        data: Any = None,
        target: str = "",
        *,
        wait: bool = True,
        timeout: float = 30.0,
    ) -> str:
        """Publish an event, and return its id when the server has acknowledged it."""
    def ready(self) -> None:
        """Wait until the hub is connected, and the server has made all subscriptions."""
    def reply(self, event: Event, data: Any) -> None:
        """Publish *data* as a reply to *event*; a handler may do so several times."""
    def request(
        self, topic: str, data: Any = None, target: str = "", *, timeout: float = 5.0
    ) -> Event:
        """Publish an event, and return the first reply: an event, whose ``data`` is the result."""
    def request_many(
        self,
        topic: str,
        data: Any = None,
        target: str = "",
        *,
        timeout: float = 5.0,
        count: int | None = None,
    ) -> Iterator[Event]:
        """Publish an event, and iterate over the replies until the time is over."""
    def run(self) -> None:
        """Listen until the session closes, or the caller is cancelled: the end of a service."""
    @overload
    def subscribe(
        self,
        what: type[E],
        *,
        where: str | Callable[[E], bool] | None = None,
        queue: int = 1000,
        overflow: Overflow = "drop_oldest",
        cursor: EventCursor | None = None,
        subscriber: Mapping[str, Any] | None = None,
    ) -> AbstractContextManager[Iterator[E | Gap | Lagged]]:
        """Listen inside a ``with`` block, which begins when the server knows of it."""
    @overload
    def subscribe(
        self,
        what: str,
        *,
        where: str | Callable[[Event], bool] | None = None,
        queue: int = 1000,
        overflow: Overflow = "drop_oldest",
        cursor: EventCursor | None = None,
        subscriber: Mapping[str, Any] | None = None,
    ) -> AbstractContextManager[Iterator[Event | Gap | Lagged]]:
        """Listen inside a ``with`` block, which begins when the server knows of it."""

class Job(models.Job):
    """A piece of background work that users see in the jobs menu."""
    def wait(self, timeout: float | None = None) -> JobState:
        """Wait until the Job is done, has failed or is deleted, wherever it runs."""

class JobBlock:
    """The block of a Job, to enter once with ``with``, or to run around each call of a function."""
    def __enter__(self) -> RunningJob: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None: ...
    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return *function* with a block of its own around each call."""

class Location(models.Location):
    """A place where the files of components are stored: ``ftrack.server``, or a folder."""
    def add_component(
        self,
        component: Component,
        source: models.Location | str | os.PathLike[str],
        *,
        recursive: bool = True,
    ) -> None:
        """Bring the file of *component* here, and register it in a commit of its own."""
    def add_components(
        self,
        components: Iterable[Component],
        source: models.Location | str | os.PathLike[str],
        *,
        recursive: bool = True,
    ) -> None:
        """Bring the files of several components here: all of them, or none."""
    def get_component_availability(self, component: Component) -> float:
        """Return how many percent of *component*, that is of its members, this location has."""
    def get_filesystem_path(self, component: Component) -> Path:
        """Return the path of *component* on this machine, whether or not there is a file."""
    def get_resource_identifier(self, component: Component) -> str:
        """Return where this location has *component*: as registered, below its folder."""
    def remove_component(self, component: Component, *, recursive: bool = True) -> None:
        """Unregister *component* here in a commit of its own, and then remove its file."""

class Query(Generic[E2]):
    """A query that is sent when you use it: with ``for``, or one of its methods."""
    def __iter__(self) -> Iterator[E2]: ...
    def all(self) -> list[E2]:
        """Return all rows, which are loaded in pages of 500."""
    def count(self) -> int:
        """Return the number of rows, without loading more of them than their keys."""
    def exists(self) -> bool:
        """Return whether there is a row."""
    @property
    def expression(self) -> str:
        """The text of the query."""
    def first(self) -> E2 | None:
        """Return the first row after the offset of the query, if any; None if there is none."""
    def in_batches(self, size: int = 500) -> Iterator[list[E2]]:
        """Return the rows in lists of *size*, the last of which may be shorter."""
    def limit(self, count: int) -> Query[E2]:
        """Return the query for the first *count* rows at most; it takes the place of a limit."""
    def of(self, model: type[F]) -> Query[F]:
        """Return the same query with rows of the class *model*, for type checkers and at run time."""
    def offset(self, count: int) -> Query[E2]:
        """Return the query without its first *count* rows; it takes the place of an offset."""
    def one(self) -> E2:
        """Return the only row."""
    def order_by(self, *keys: object) -> Query[E2]:
        """Return the query with its rows in the order of *keys*, instead of another order."""
    def select(self, *projections: object) -> Query[E2]:
        """Return the query that loads *projections*, instead of others."""
    def where(self, *conditions: object, **parameters: object) -> Query[E2]:
        """Return the query for those rows that meet all *conditions*, too."""

class RunningJob:
    """A Job while its block runs: reports progress, takes attachments, decides how the Job ends."""
    def advance(self, amount: float = 1, message: str | None = None) -> None:
        """Report that some more work is done, for example one more file."""
    def attach(
        self,
        source: Uploadable,
        *,
        name: str | None = None,
        data: Mapping[str, Any] | None = None,
        report_progress: bool = False,
    ) -> FileComponent:
        """Upload *source*, and attach it to the Job."""
    @property
    def description(self) -> str | None:
        """The text in the jobs menu, without progress. It can be set at any moment."""
    @description.setter
    def description(self, value: str | None) -> None: ...
    @property
    def entity(self) -> Job:
        """The Job itself."""
    def fail(self, reason: str) -> None:
        """Let the Job end as failed, with *reason*, although the block ends without an error."""
    def finish(self, result: str | None = None) -> None:
        """Let the Job end as done, with a text that says what was done."""
    @property
    def id(self) -> str:
        """The Job's id."""
    @property
    def message(self) -> str | None:
        """What the Job is doing, as the jobs menu shows it beside the percentage."""
    @message.setter
    def message(self, value: str | None) -> None: ...
    def progress(
        self, done: float, message: str | float | None = None, *, total: float | None = None
    ) -> None:
        """Report how far the work is. Never waits; only the latest report is written."""
    def requeue(self, reason: str | None = None) -> None:
        """Let the Job be queued again, because its work is to be tried again."""
    def run(
        self,
        arguments: Sequence[str | PathLike[str]],
        *,
        progress: str | Pattern[str] | None = None,
        frames: str | None = None,
        duration: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | PathLike[str] | None = None,
        timeout: float | None = None,
        grace: float = 5.0,
        retries: int = 0,
        log: LogWhen = "failure",
        quiet: bool = False,
        check: bool = True,
    ) -> CommandResult:
        """Run a command, show its progress as that of the Job, and wait for its end."""
    def stage(self, name: str, *, weight: float = 1, total: float | None = None) -> Stage:
        """Return a stage of the work: a context manager, for ``with``."""
    @property
    def stop_requested(self) -> StopRequest:
        """Whether the Job is to stop: a flag, in any thread, that can be awaited."""
    def track(
        self, items: Iterable[T] | AsyncIterable[T], *, total: float | None = None
    ) -> Iterator[T]:
        """Iterate over *items*, and report after each one how many are done."""

class Session:
    """A connection to an ftrack server, with its entities and their uncommitted changes."""

    is_closed: bool
    def __init__(
        self,
        server_url: str | None = None,
        api_key: str | None = None,
        api_user: str | None = None,
        *,
        timeout: float = 60.0,
        client: HttpClient | None = None,
        strict_api: bool = False,
        group_commit: bool = True,
        retry: RetryPolicy = ...,
        journal: str | os.PathLike[str] | None = None,
        lease: float = 180.0,
        transfers: int = 8,
        observer: Observer | None = None,
        timings: Timings = ...,
        transport: Transport | None = None,
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    @property
    def api_user(self) -> str:
        """Name of the user as whom the session acts."""
    def call(self, operations: Sequence[Mapping[str, object]]) -> list[Any]:
        """Send *operations* in one request, and return the result of each."""
    def claim_job(self, query: Query[Any] | str, *, spread: int = 8) -> Job | None:
        """Claim one of the queued Jobs that *query* finds, for this session; None if none is free."""
    def close(self) -> None:
        """Close the session: send what waits to be sent, and close its connections."""
    def commit(self) -> None:
        """Send the recorded operations in one transaction; return when the server has applied it."""
    @overload
    def create(self, kind: type[E2], data: Mapping[str, Any] | None = None) -> E2:
        """Make an entity that the next commit creates."""
    @overload
    def create(self, kind: str, data: Mapping[str, Any] | None = None) -> Entity:
        """Make an entity that the next commit creates."""
    def create_component(
        self,
        source: Uploadable,
        data: Mapping[str, Any] | None = None,
        location: Entity | Literal["auto"] = "auto",
        *,
        name: str | None = None,
        version: Entity | None = None,
        checksum: bool = True,
        progress: ProgressCallback | None = None,
    ) -> FileComponent:
        """Upload *source* to the server location, and create a component for it."""
    def create_note(
        self,
        entity: Entity,
        content: str,
        *,
        author: Entity | None = None,
        recipients: Iterable[Entity] = (),
        category: Entity | None = None,
        labels: Iterable[Entity] = (),
    ) -> Entity:
        """Make a note about *entity*, or a reply to a note; the next commit creates it."""
    def create_sequence(
        self,
        pattern: str,
        data: Mapping[str, Any] | None = None,
        *,
        version: Entity | None = None,
        checksum: bool = True,
        progress: ProgressCallback | None = None,
    ) -> SequenceComponent:
        """Upload numbered files, and make one component of them, with a member for each file."""
    def create_thumbnail(
        self,
        entity: Entity,
        source: Uploadable,
        data: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
    ) -> FileComponent:
        """Upload a picture, and make it the thumbnail of *entity*; return its component."""
    @property
    def created(self) -> list[Entity]:
        """Entities that the next commit creates."""
    def current_user(self) -> User:
        """Return the user as whom the session acts, loaded once."""
    def custom_attributes(self) -> list[CustomAttribute]:
        """Load the configurations of custom attributes, and return what they say."""
    def delete(self, entity: Entity) -> None:
        """Record that the next commit deletes *entity*."""
    @property
    def deleted(self) -> list[Entity]:
        """Entities that the next commit deletes."""
    def download(
        self,
        component: Entity | str | UUID,
        path: str | os.PathLike[str],
        *,
        resume: bool = False,
        checksum: bool = True,
        progress: ProgressCallback | None = None,
    ) -> Path:
        """Download the file of *component* to *path*, and return the path."""
    def encode_media(
        self,
        media: Entity | Uploadable,
        *,
        version: Entity | None = None,
        keep_original: bool | None = None,
        name: str | None = None,
    ) -> Job:
        """Let ftrack encode an image or a video for the browser; return its Job."""
    @overload
    def ensure(
        self, kind: type[E2], data: Mapping[str, Any], identifying_keys: Sequence[str] | None = None
    ) -> E2:
        """Find an entity and update it, or create it; return it with the values of *data*."""
    @overload
    def ensure(
        self, kind: str, data: Mapping[str, Any], identifying_keys: Sequence[str] | None = None
    ) -> Entity:
        """Find an entity and update it, or create it; return it with the values of *data*."""
    @property
    def events(self) -> EventHub:
        """The event hub, which connects when it is first used: see :class:`EventHub`."""
    @overload
    def get(self, kind: type[E2], key: Key) -> E2 | None:
        """Return the entity with *key* as the server has it now; None if there is none."""
    @overload
    def get(self, kind: str, key: Key) -> Entity | None:
        """Return the entity with *key* as the server has it now; None if there is none."""
    @property
    def health(self) -> Health:
        """Queued commits, undelivered final statuses and the latest failure, with their times."""
    @property
    def modified(self) -> list[Entity]:
        """Entities that the next commit changes."""
    def open(self) -> Self:
        """Open the session where there is no ``with`` block; return the session itself."""
    def populate(
        self, entities: Entity | Iterable[Entity], projections: str | Sequence[str]
    ) -> None:
        """Load attributes of *entities*: ``session.populate(jobs, "status, user.email")``."""
    @overload
    def query(self, expression: type[E2], /) -> Query[E2]:
        """Return a query, which is sent when you use it: see :class:`Query`."""
    @overload
    def query(self, expression: str, /, **parameters: object) -> Query[Entity]:
        """Return a query, which is sent when you use it: see :class:`Query`."""
    def queue_job(
        self,
        key: UUID | None = None,
        *,
        user: Entity | str | UUID | None = None,
        description: str | None = None,
        data: Mapping[str, Any] | str | None = None,
    ) -> Job:
        """Create a Job as queued, where its work is sent to a queue; return it."""
    @property
    def recorded_operations(self) -> tuple[Operation, ...]:
        """Operations that the next commit sends, in order."""
    def rollback(self) -> None:
        """Drop what is recorded and not committed, and restore the values of the entities."""
    def schemas(self) -> list[dict[str, Any]]:
        """Return the server's schema documents, loaded once (docs/protocol.md, section 5.1)."""
    def server_information(self) -> dict[str, Any]:
        """Return what the server says of itself, loaded once (docs/protocol.md, section 2.4)."""
    @property
    def server_url(self) -> str:
        """URL of the server, without a trailing slash."""
    def statuses(
        self, project: Entity, entity_type: str, *, task_type: Entity | None = None
    ) -> list[Entity]:
        """Return the statuses that *project* has for a type of entities, in their order."""
    def stop_job(
        self, job: models.Job | str | UUID, reason: str | None = None, *, by: str | None = None
    ) -> JobState:
        """Stop a Job, wherever it runs: it fails as "stopped by maya: wrong shot"."""
    def types(self, project: Entity, entity_type: str = "Task") -> list[Entity]:
        """Return the types that *project* has for tasks, or for another type of objects."""
    @property
    def uncertain_operations(self) -> tuple[Operation, ...]:
        """Operations that were sent, and may or may not have been applied."""
    def unit_of_work(self) -> AbstractContextManager[UnitOfWork]:
        """Give the current task a unit of work of its own inside a ``with`` block."""
    def use_models(self, models: ModuleType | Iterable[type[Entity]]) -> None:
        """Let entities be of the classes in *models*, by their entity types."""
    def wait_for(
        self,
        jobs: models.Job | str | UUID | Iterable[models.Job | str | UUID],
        *,
        timeout: float | None = None,
    ) -> list[JobState]:
        """Wait until *jobs* are done, failed or deleted, wherever they run; return their states."""
    def watch(
        self, jobs: models.Job | str | UUID | Iterable[models.Job | str | UUID]
    ) -> Iterator[JobState]:
        """Return the changes of *jobs*, until all have ended, for ``for``."""

class Stage:
    """A stage of a Job's work: see :meth:`RunningJob.stage`."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def advance(self, amount: float = 1, message: str | None = None) -> None:
        """Report that some more work is done, for example one more file."""
    @property
    def fraction(self) -> float:
        """The part of the stage that is done, from 0 to 1."""
    @property
    def message(self) -> str | None:
        """What the Job is doing, as the jobs menu shows it beside the percentage."""
    @message.setter
    def message(self, value: str | None) -> None: ...
    def progress(
        self, done: float, message: str | float | None = None, *, total: float | None = None
    ) -> None:
        """Report how far the work is. Never waits; only the latest report is written."""
    def stage(self, name: str, *, weight: float = 1, total: float | None = None) -> Stage:
        """Return a stage of the work: a context manager, for ``with``."""
    def track(
        self, items: Iterable[T] | AsyncIterable[T], *, total: float | None = None
    ) -> Iterator[T]:
        """Iterate over *items*, and report after each one how many are done."""

class UnitOfWork:
    """A unit of work, inside its block: see :meth:`Session.unit_of_work`."""
    def commit(self) -> None:
        """Send everything recorded so far; returns when the server has applied it."""
    @property
    def created(self) -> list[Entity]:
        """Entities that the next commit creates."""
    @property
    def deleted(self) -> list[Entity]:
        """Entities that the next commit deletes."""
    @property
    def modified(self) -> list[Entity]:
        """Entities that the next commit changes, without the created and deleted ones."""
    @property
    def recorded_operations(self) -> tuple[Operation, ...]:
        """All pending operations, in the order they were recorded."""
    def resolve(self) -> None:
        """Settle what is uncertain: ask the server what it has done, and send the rest."""
    def rollback(self, *, keep_uncertain: bool = False) -> None:
        """Forget everything recorded, put local values back, and detach created entities."""
    def set(self, entity: Entity, **values: Any) -> None:
        """Record new *values* of *entity* without touching its local ones."""
    @property
    def uncertain_operations(self) -> tuple[Operation, ...]:
        """Operations that were sent; it is not known whether they were applied."""

def current_job() -> RunningJob:
    """Return the innermost Job whose block the calling code runs in."""

def default_session() -> Session:
    """Return the session that :func:`job_context` uses if it is given none."""

def job_context(
    session: Session | Callable[[], Session] | None = None,
    *,
    job: Entity | str | UUID | None = None,
    user: Entity | str | UUID | None = None,
    description: str | None = None,
    data: Mapping[str, Any] | str | None = None,
    grace: float = 10.0,
    attach_traceback: bool = True,
    interval: float = 1.0,
    stop_on: StopOn = "request",
    take_over: bool = False,
    join: bool = False,
    new_id: str | UUID | None = None,
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
    attach_log: bool = False,
) -> JobBlock:
    """Run the block as a Job: running inside, done after it, failed if it ends by an error."""

def recover(
    session: Session,
    *,
    dry_run: bool = False,
    older_than: timedelta | float | None = None,
    user: str | None = None,
    without_lease: bool = False,
    grace: float = 60.0,
) -> Recovery:
    """Fail the running Jobs that have no owner any more."""

def run_command(
    session: Session,
    arguments: Sequence[str | PathLike[str]],
    *,
    job: Entity | str | UUID | None = None,
    user: Entity | str | UUID | None = None,
    description: str | None = None,
    progress: str | Pattern[str] | None = None,
    frames: str | None = None,
    duration: float | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | PathLike[str] | None = None,
    timeout: float | None = None,
    grace: float = 10.0,
    retries: int = 0,
    attach: Sequence[str] = (),
    log: LogWhen = "failure",
    quiet: bool = False,
    require_ftrack: bool = False,
) -> CommandResult:
    """Run a command as a Job, and return how it ended. ``aioftrackjobs run`` is made of this."""

def shutdown_on_signals(session: Session, *, grace: float = 10.0) -> AbstractContextManager[None]:
    """End the block, and all running Jobs of *session*, when SIGTERM or SIGINT arrives."""

__all__ = [
    "EventHub",
    "Job",
    "JobBlock",
    "Location",
    "Query",
    "RunningJob",
    "Session",
    "Stage",
    "UnitOfWork",
    "current_job",
    "default_session",
    "job_context",
    "recover",
    "run_command",
    "shutdown_on_signals",
]
