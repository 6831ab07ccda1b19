"""Facts about single types and attributes that are in no schema document.

The server follows the documents. These facts come from clients, recorded responses and the
documentation. Custom attributes have a module of their own
(:mod:`aioftrackjobs.devserver.store.custom_attributes`).
"""

from __future__ import annotations

from collections.abc import Mapping

#: The type of users that every server has.
USER_TYPE = "ac9fa5aa-4361-11e0-b7cc-0019bb4983d8"

#: By type and attribute: the value that the server sets if clients send none.
SERVER_DEFAULTS: Mapping[tuple[str, str], str] = {
    ("Project", "status"): "active",
    ("User", "user_type_id"): USER_TYPE,
}
#: Attributes that name the acting user, unless clients send another.
BY_ACTING_USER = frozenset({("AssetVersion", "user_id")})
#: Required attributes for which the server makes up a unique value if clients send none.
MADE_UP = frozenset({("User", "username")})
#: Types that only administrators change: with them, users could grant themselves anything.
ADMINISTERED = frozenset({"SecurityRole", "UserSecurityRole", "UserSecurityRoleProject"})
#: By type: the type that joins the acting user to a new entity, and its keys of both. The caller
#: becomes a recipient of a note.
JOINED_TO_CALLER: Mapping[str, tuple[str, str, str]] = {
    "Note": ("Recipient", "note_id", "resource_id")
}
#: Unique attributes: a user's name, and the user of a running timer.
UNIQUE: Mapping[str, str] = {"User": "username", "Timer": "user_id"}
#: Keys that delete the entity when their target is deleted, as required keys do.
CASCADING_KEYS = frozenset({"parent_id", "in_reply_to_id"})
#: Types whose entities outlive what they name by a bare ``parent_id``: the history of the others.
OUTLIVING = frozenset({"Event"})
#: Relations to a parent, if that is of the same family.
PARENT_RELATIONS = ("parent", "container", "in_reply_to")

#: Collections that differ by a value of their members, not by a key: by target and name, the
#: attribute and its value.
NARROWED_COLLECTIONS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("Appointment", "allocations"): ("type", "allocation"),
    ("Appointment", "assignments"): ("type", "assignment"),
}
#: By the prefix of a collection's name: the end of a link between two entities of one type.
LINK_ENDS: Mapping[str, str] = {"incoming": "to", "outgoing": "from"}
#: Relations between entities of one type that a linking type stores, with its ends. The link of
#: a version starts at the version that uses another.
LINKED_RELATIONS: Mapping[str, tuple[str, str, str]] = {
    "uses_versions": ("AssetVersionLink", "to_id", "from_id"),
    "used_in_versions": ("AssetVersionLink", "from_id", "to_id"),
}
#: Collections whose members may be of a wider type than documents say: lists hold shots as well
#: as tasks.
WIDER_TARGETS: Mapping[tuple[str, str], str] = {("TypedContextList", "items"): "TypedContext"}
#: Names of relations that queries in the documentation use, and documents do not have.
RELATION_ALIASES: Mapping[tuple[str, str], str] = {("Status", "state"): "type"}
#: Plain values that queries in the documentation follow with `.name`.
NESTED_VALUES = frozenset({("Project", "status")})

#: Computed addresses of files: the key of the component, the last part of the address, and the
#: key in the object that holds the address.
FILE_URLS: Mapping[str, tuple[str, str, str]] = {
    "thumbnail_url": ("thumbnail_id", "thumbnail", "url"),
    "url": ("component_id", "get", "value"),
}
#: Computed values that are the sum of an attribute over the members of a relation.
SUMS: Mapping[str, tuple[str, str]] = {"time_logged": ("timelogs", "duration")}
#: Computed values that are the difference of two attributes.
DIFFERENCES: Mapping[str, tuple[str, str]] = {"bid_time_logged_difference": ("bid", "time_logged")}
#: By the column of an attribute: another name, in no document, under which clients may read it.
OTHER_NAMES: Mapping[str, str] = {"casted_value": "_casted_value"}
#: Relations to many whose new members are embedded in the result for a new owner.
EMBEDDED_RELATIONS = frozenset({"component_locations"})
