"""Why a server cannot be started, one class for each thing it is given; or does not go on.

::

    ServerStartError      what the server was given cannot be used; nothing of it stays
    ├── AddressError      host and port
    ├── StoreError        the database
    ├── StorageError      the folder for files
    ├── SchemaError       the schema documents
    ├── FixtureError      the entities to load
    ├── CredentialsError  user and key
    └── FaultError        the faults to inject
    ServerEndedError      it had been started, and ended by itself
"""

from __future__ import annotations

from aioftrackjobs.errors import FtrackJobsError


class ServerStartError(FtrackJobsError):
    """The server cannot be started with what it was given; nothing of it stays.

    Attributes:
        reason: What is wrong.
    """

    reason: str


class ServerEndedError(FtrackJobsError):
    """The server ended although nobody stopped it. What failed in it is the cause, and logged."""

    def __str__(self) -> str:
        return "the server ended by itself; its log says why"


class AddressError(ServerStartError):
    """The server could not take its address.

    Attributes:
        address: Host and port.
        reason: What the system said.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot serve on {self.address}: {self.reason}"


class StoreError(ServerStartError):
    """The database cannot be used.

    Attributes:
        database: Name of the file; ``:memory:`` for none.
        reason: What is wrong with it.
    """

    def __init__(self, database: str, reason: str) -> None:
        super().__init__(database, reason)
        self.database = database
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot use the database {self.database}: {self.reason}"


class StorageError(ServerStartError):
    """The folder for files cannot be used.

    Attributes:
        folder: Its name; None for a temporary one.
        reason: What the system said.
    """

    def __init__(self, folder: str | None, reason: str) -> None:
        super().__init__(folder, reason)
        self.folder = folder
        self.reason = reason

    def __str__(self) -> str:
        if self.folder is None:
            return f"cannot make a temporary folder for files: {self.reason}"
        return f"cannot keep files in {self.folder}: {self.reason}"


class SchemaError(ServerStartError):
    """The schema documents are not such as a server answers.

    Attributes:
        document: Name of the entity type, or where it stands if it has none; None if what is
            wrong is not one document.
        reason: What is wrong with it.
    """

    def __init__(self, document: str | None, reason: str) -> None:
        super().__init__(document, reason)
        self.document = document
        self.reason = reason

    def __str__(self) -> str:
        if self.document is None:
            return f"cannot serve these schemas: {self.reason}"
        return f"cannot serve the schema of {self.document}: {self.reason}"


class FixtureError(ServerStartError):
    """The entities to load cannot be loaded; none of them is.

    Attributes:
        fixture: Name of the file; None if it was given as a list.
        reason: What is wrong with it, or with one entry.
        entry: Number of the entry, from 1; None if what is wrong is not one entry.
        entity: Type and id of the entry, as far as it has them.
    """

    def __init__(
        self,
        fixture: str | None,
        reason: str,
        entry: int | None = None,
        entity: str | None = None,
    ) -> None:
        super().__init__(fixture, reason, entry, entity)
        self.fixture = fixture
        self.reason = reason
        self.entry = entry
        self.entity = entity

    def __str__(self) -> str:
        name = "the fixture" if self.fixture is None else f"the fixture {self.fixture}"
        if self.entry is None:
            return f"cannot load {name}: {self.reason}"
        entity = f" ({self.entity})" if self.entity else ""
        return f"cannot load {name}: entry {self.entry}{entity}: {self.reason}"


class CredentialsError(ServerStartError):
    """The user or the key is nothing that an HTTP header can carry. Never shows the key.

    Attributes:
        argument: ``api_user`` or ``api_key``.
        reason: What is wrong with it.
    """

    def __init__(self, argument: str, reason: str) -> None:
        super().__init__(argument, reason)
        self.argument = argument
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.argument} cannot travel in an HTTP header: {self.reason}"


class FaultError(ServerStartError):
    """An option plans no fault.

    Attributes:
        option: Its text.
        reason: What is wrong with it.
    """

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(option, reason)
        self.option = option
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot inject the fault {self.option!r}: {self.reason}"
