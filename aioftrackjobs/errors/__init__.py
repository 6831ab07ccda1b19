"""All errors of this package, in one tree. The class says what you can do next.

::

    FtrackJobsError
    ├── ConfigurationError         set what is missing, then start again
    ├── ArgumentError              correct the argument that it names; nothing was sent
    ├── MissingExtraError          install the extra that it names
    ├── UnsupportedPlatformError   do on this operating system what it says
    ├── SessionStateError          open the session, where it is used; or stop using it
    ├── TransportError             no complete response: the server may have acted; try again later
    │   ├── ConnectError           the request never left this machine: safe to repeat
    │   ├── EventTimeoutError      an event got no acknowledgement or no reply in time
    │   └── MalformedResponseError   the response is not from ftrack: look at the URL and the proxy
    ├── CommitUncertainError       a commit may have been applied: await its resolve()
    ├── ServerError                the server refused the request and applied nothing: change it
    │   ├── AuthenticationError    correct the user name or the API key
    │   ├── PermissionDeniedError  ask for the permission
    │   ├── ValidationError        correct the value, the attribute or the entity type
    │   ├── DuplicateEntryError    use the entity that exists already
    │   └── QuerySyntaxError       correct the query
    ├── CommandFailedError         read its reason, and the log that is attached to the Job
    ├── EventQueueFullError        handle events faster, or give the subscription a longer queue
    ├── JobStoppedError            another client stopped the Job: go on with the next one
    ├── JobDeletedError            another client deleted the Job: its end is not recorded
    ├── QueryParameterError        make placeholders and parameters of the query match
    ├── NoResultFoundError         handle that there is no such entity
    ├── MultipleResultsFoundError  make the criteria narrower
    ├── JobOwnedError              another session runs the Job: wait, take it over, or join it
    ├── EntityError                correct how the entity is used; nothing was recorded
    │   ├── NotLoadedError         await session.populate(...) first
    │   ├── UnknownAttributeError  correct the name of the attribute
    │   ├── UnknownEntityTypeError   correct the name of the entity type
    │   ├── ImmutableAttributeError  create a new entity instead
    │   ├── InvalidKeyError        give all parts of the key
    │   ├── InvalidValueError      give the attribute a value that it can have
    │   └── UnserialisableValueError   convert the value to one that JSON can hold
    └── TransferError              a file was not transferred; no incomplete file is left
        ├── FileChangedError       upload it when nothing writes to it any more
        ├── MissingFileError       bring the file back, or remove the component from the location
        ├── ComponentInLocationError      use what the location has
        ├── ComponentNotInLocationError   add it to the location, or take another source
        └── UnsupportedLocationError   use the server location

The facts about an error are attributes, and ``str()`` makes a text of them. A text of the server
is kept unchanged.
"""

from aioftrackjobs.errors._outcomes import (
    AuthenticationError,
    CommandFailedError,
    CommitUncertainError,
    ComponentInLocationError,
    ComponentNotInLocationError,
    ConnectError,
    DuplicateEntryError,
    EventQueueFullError,
    EventTimeoutError,
    FileChangedError,
    JobDeletedError,
    JobOwnedError,
    JobStoppedError,
    MalformedResponseError,
    MissingFileError,
    MultipleResultsFoundError,
    NoResultFoundError,
    PermissionDeniedError,
    QuerySyntaxError,
    ServerError,
    TransferError,
    TransportError,
    UnsupportedLocationError,
    ValidationError,
)
from aioftrackjobs.errors._usage import (
    ArgumentError,
    ConfigurationError,
    EntityError,
    FtrackJobsError,
    ImmutableAttributeError,
    InvalidKeyError,
    InvalidValueError,
    MissingExtraError,
    NotLoadedError,
    QueryParameterError,
    SessionStateError,
    UnknownAttributeError,
    UnknownEntityTypeError,
    UnserialisableValueError,
    UnsupportedPlatformError,
)

__all__ = [
    "ArgumentError",
    "AuthenticationError",
    "CommandFailedError",
    "CommitUncertainError",
    "ComponentInLocationError",
    "ComponentNotInLocationError",
    "ConfigurationError",
    "ConnectError",
    "DuplicateEntryError",
    "EntityError",
    "EventQueueFullError",
    "EventTimeoutError",
    "FileChangedError",
    "FtrackJobsError",
    "ImmutableAttributeError",
    "InvalidKeyError",
    "InvalidValueError",
    "JobDeletedError",
    "JobOwnedError",
    "JobStoppedError",
    "MalformedResponseError",
    "MissingExtraError",
    "MissingFileError",
    "MultipleResultsFoundError",
    "NoResultFoundError",
    "NotLoadedError",
    "PermissionDeniedError",
    "QueryParameterError",
    "QuerySyntaxError",
    "ServerError",
    "SessionStateError",
    "TransferError",
    "TransportError",
    "UnknownAttributeError",
    "UnknownEntityTypeError",
    "UnserialisableValueError",
    "UnsupportedLocationError",
    "UnsupportedPlatformError",
    "ValidationError",
]

for _name in __all__:  # a traceback, and a pickle, name the module that users import
    globals()[_name].__module__ = __name__
