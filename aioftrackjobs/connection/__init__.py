"""What a session keeps between its requests: its connection to a server, and how well it is."""

from aioftrackjobs.connection._connection import Connection

__all__ = ["Connection"]
