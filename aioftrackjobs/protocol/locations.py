"""The locations that every ftrack server has.

Source:
    docs/protocol.md, section 6.1.
"""

from __future__ import annotations

from typing import NamedTuple

ORIGIN_LOCATION_ID = "ce9b348f-8809-11e3-821c-20c9d081909b"
UNMANAGED_LOCATION_ID = "cb268ecc-8809-11e3-a7e2-20c9d081909b"
REVIEW_LOCATION_ID = "cd41be70-8809-11e3-b98a-20c9d081909b"
CONNECT_LOCATION_ID = "07b82a97-8cf9-11e3-9383-20c9d081909b"
SERVER_LOCATION_ID = "3a372bde-05bc-11e4-8908-20c9d081909b"


class BuiltinLocation(NamedTuple):
    """A location whose id and name are the same on every server."""

    id: str
    name: str


BUILTIN_LOCATIONS = (
    BuiltinLocation(ORIGIN_LOCATION_ID, "ftrack.origin"),
    BuiltinLocation(UNMANAGED_LOCATION_ID, "ftrack.unmanaged"),
    BuiltinLocation(REVIEW_LOCATION_ID, "ftrack.review"),
    BuiltinLocation(CONNECT_LOCATION_ID, "ftrack.connect"),
    BuiltinLocation(SERVER_LOCATION_ID, "ftrack.server"),
)
