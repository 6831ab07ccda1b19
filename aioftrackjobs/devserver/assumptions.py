"""What this server does where the behaviour of a real one is not known.

The protocol reference marks these as unknown or inferred; each was settled in the kindest way
that no source contradicts. They are kept in one place so that they can be checked one day.
"""

from __future__ import annotations

ASSUMPTIONS: tuple[str, ...] = (
    "A batch is one transaction; a query in it sees what earlier operations of it wrote.",
    "Required attributes and foreign keys are checked when all operations of a batch are done.",
    "Without strict mode refusals are sent with status 200; bodies and addresses that no client "
    "sends are refused with 4xx in any mode.",
    "In strict mode: 400 ParseError, 401 InvalidCredentialsError, 404 EntityNotFoundError, "
    "409 DuplicateEntryError and IntegrityError, 422 ValidationError, "
    "501 UnsupportedOperationError.",
    "Updating or deleting what does not exist is an EntityNotFoundError.",
    "Deleting what an earlier operation of the same batch may have taken along is done.",
    "Changing an immutable attribute that has a value is a ValidationError; repeating the value "
    "is not.",
    "An unknown action is a ValidationError with the text that the official client looks for.",
    "A personal key acts as its user only. There are no other permissions.",
    "The server sets created_at, date and thread_activity at creation, and created_by_id to the "
    "acting user, unless they are sent.",
    "finished_at is set when a status becomes done or failed, and cleared when work is reopened.",
    "Required flags and numbers that are not sent are false and zero; a required word of a "
    "vocabulary, such as a task's status, is its first.",
    "What is made below a parent belongs to the parent's project.",
    "Deleting an entity deletes what requires it, what is always named by it (system "
    "projections), its children, and its metadata and notes; other references are cleared.",
    "Members that drop out of a collection are deleted if they cannot be without an owner.",
    "like ignores the case of ASCII letters; is and in do not. An underscore in a pattern is an "
    "ordinary character. Keywords may be written in any case.",
    "Comparing with an attribute that has no value is neither true nor false, as in SQL; the "
    "tests any and has are always true or false.",
    "Without order by, entities come in the order of their creation.",
    "in () finds nothing; none in a list finds what has no value.",
    "Computed addresses carry a signature for one file, not the caller's API key; a component "
    "location's address is in 'value', a thumbnail's in 'url'.",
    "time_logged, bid_time_logged_difference and link are not computed and read as null.",
    "Deleting a component leaves its file until the server's storage folder goes, or "
    "/component/remove is called.",
)
