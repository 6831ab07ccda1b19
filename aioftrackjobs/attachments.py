"""What users should know of the attachments of Jobs."""

from __future__ import annotations

import warnings
from collections import OrderedDict

_SECOND = 2

#: Jobs that are remembered to warn of a second attachment; the oldest are forgotten.
_WATCHED_JOBS = 10_000


class AttachmentWatch:
    """Warns when a Job gets a second attachment: the web interface offers only one."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()

    def note(self, job_id: str) -> None:
        """Take note of an attachment of the Job; the second one warns, once."""
        self._counts[job_id] = count = self._counts.get(job_id, 0) + 1
        self._counts.move_to_end(job_id)
        if len(self._counts) > _WATCHED_JOBS:
            self._counts.popitem(last=False)
        if count == _SECOND:
            warnings.warn(
                f"Job {job_id} gets a second attachment; ftrack's web interface offers only one "
                "of them for download",
                stacklevel=3,
            )
