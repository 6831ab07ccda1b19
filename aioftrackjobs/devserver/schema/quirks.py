"""What no schema document tells of single types and attributes, in one place.

The engine goes by documents. Where they are silent, and clients, recorded answers or the
documentation are not, it looks here. Custom attributes have a module of their own
(:mod:`dense`).
"""

from __future__ import annotations

from collections.abc import Mapping

#: The type of users that every server is delivered with.
USER_TYPE = "ac9fa5aa-4361-11e0-b7cc-0019bb4983d8"

#: By type and attribute: what the server sets where clients leave it out.
SERVER_DEFAULTS: Mapping[tuple[str, str], str] = {
    ("Project", "status"): "active",
    ("User", "user_type_id"): USER_TYPE,
}
#: Made by the acting user, unless another is named.
BY_ACTING_USER = frozenset({("AssetVersion", "user_id")})
#: What there can be one of only: a user's name, and running timer.
UNIQUE: Mapping[str, str] = {"User": "username", "Timer": "user_id"}
#: Keys whose target takes an entity along when it is deleted, as required ones do.
CASCADING_KEYS = frozenset({"parent_id", "in_reply_to_id"})
#: Relations that lead upwards, where what they lead to is of the same family.
PARENT_RELATIONS = ("parent", "container", "in_reply_to")

#: Collections of one type that differ by a word in the members, not by a key: by target and
#: name, the attribute and the word.
NARROWED_COLLECTIONS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("Appointment", "allocations"): ("type", "allocation"),
    ("Appointment", "assignments"): ("type", "assignment"),
}
#: Which end of a link between two entities of one type a collection stands at.
LINK_ENDS: Mapping[str, str] = {"incoming": "to", "outgoing": "from"}
#: Relations between entities of one type that a linking type stores, with its ends. The new
#: version of something is linked to those it uses.
LINKED_RELATIONS: Mapping[str, tuple[str, str, str]] = {
    "uses_versions": ("AssetVersionLink", "to_id", "from_id"),
    "used_in_versions": ("AssetVersionLink", "from_id", "to_id"),
}
#: Collections that documents name a subtype for, by the table that all of its family share:
#: shots have lists as tasks have.
WIDER_TARGETS: Mapping[tuple[str, str], str] = {("TypedContextList", "items"): "TypedContext"}
#: Names that relations have in the documentation's queries and not in the documents.
RELATION_ALIASES: Mapping[tuple[str, str], str] = {("Status", "state"): "type"}
#: Plain values behind which the documentation's own queries go on, with `name`.
NESTED_VALUES = frozenset({("Project", "status")})

#: Computed addresses of files: the key of the component, what is done with it, and the key in
#: the object that the address is sent in.
FILE_URLS: Mapping[str, tuple[str, str, str]] = {
    "thumbnail_url": ("thumbnail_id", "thumbnail", "url"),
    "url": ("component_id", "get", "value"),
}
#: Computed values that are the sum of an attribute over the members of a relation.
SUMS: Mapping[str, tuple[str, str]] = {"time_logged": ("timelogs", "duration")}
#: Computed values that are the difference of two attributes.
DIFFERENCES: Mapping[str, tuple[str, str]] = {"bid_time_logged_difference": ("bid", "time_logged")}
#: Relations to many that lead to new entities in the answer for a new one.
EMBEDDED_RELATIONS = frozenset({"component_locations"})
