"""The journal: a file on this host that keeps what a crash would otherwise lose.

It knows each Job that a session runs, each final status that the server has not acknowledged, and
each upload that is not registered. An entry is written before the request that it is about leaves,
so that it outlives the process from then on. Whenever the process dies, the next session with the
journal can put things right.

A moment later the entry also outlives a power cut: one sync of the disk covers all entries that
came together, and no Job waits for it. A power cut loses at most the last tenth of a second, on a
healthy disk. That is entries of Jobs that just began, which the server has, too: they fail when
their lease ends, by :func:`recover`. And it is final statuses of Jobs that just ended: the server
has most of them by then, and the other Jobs are failed as lost.

A journal that cannot be written never stops the work: it logs that once, tries again from time to
time, and then writes what is still true.

A :class:`Journal` is a session's part of it, in the event loop. It records changes in a ledger
(``_ledger``). A thread of its own (``_writer``) takes all changes that wait there, and writes them
in one transaction to the file (``_file``), which all sessions of the host share.
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
