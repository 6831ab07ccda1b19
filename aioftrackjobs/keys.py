"""The keys of new entities, which clients make themselves."""

from uuid import uuid4


def new_id() -> str:
    """Return a random key, as clients make them (protocol.md, section 5.1, ``{uid}``)."""
    return str(uuid4())
