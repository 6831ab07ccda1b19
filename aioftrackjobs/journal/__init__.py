"""The journal: what this host owes the server, kept where a crash does not reach it.

It knows each Job that a session runs, each last word that the server has not acknowledged, and
each upload that is not registered. An entry is safe from the death of the process before the
request leaves that it is about, so that whatever the moment of death, the next session with the
journal can put things right.

Safe from a power cut it is a moment later, in one sync of the disk for all that came together:
who runs a Job does not wait for a disk. What the cut takes, at most the last tenth of a second on
a disk that is well, is entries of Jobs that just began, which the server has too: they fail when
their lease runs out, by :func:`recover`; and last words that were just said: most of them the
server has by then, and the Job of one that it has not is failed as lost.

A journal that cannot be written never stops the work: it says so once, tries again now and then,
and writes what is still true by then.

A :class:`Journal` is a session's part of it, in the event loop. What it notes stands in a ledger
(``_ledger``), from which a thread of its own (``_writer``) takes all changes that are waiting, and
writes them to the file (``_file``), which all sessions of the host share, in one transaction.
"""

from aioftrackjobs.journal._entry import Entry, Owner
from aioftrackjobs.journal._journal import Journal
from aioftrackjobs.journal._ledger import JournalState, Receipt
from aioftrackjobs.journal._process import Process, this_process

__all__ = [
    "Entry",
    "Journal",
    "JournalState",
    "Owner",
    "Process",
    "Receipt",
    "this_process",
]
