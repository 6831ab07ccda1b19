"""The example queries of the docs/protocol.md, section 4.10, to the letter."""

from __future__ import annotations

import re

#: By number; some are several fragments. Ids, and other things shown as dots, are to be filled.
EXAMPLES: dict[int, tuple[str, ...]] = {
    1: ("Project",),
    2: ("User where username is jenkins",),
    3: ('Project where status is active and name like "%thrones"',),
    4: ('Project where status is active and (name like "%thrones" or full_name like "%thrones")',),
    5: ('Task where project.id is "<id>" and status.type.name is "Done"',),
    6: ('Task where timelogs.start >= "2026-01-01T00:00:00+00:00"',),
    7: ('Note where author has (first_name is "Jane" and last_name is "Doe")',),
    8: ("Project where metadata any (key=some_key and value=some_value)",),
    9: ("User where not timelogs any ()",),
    10: (
        "... from Note where parent_id in (a,b) and not in_reply_to has () order by "
        "thread_activity desc offset 0 limit 10",
    ),
    11: ("select full_name, status.name from Project",),
    12: ("select count(id) from Task group by status_id",),
    13: ('select id from User where username is "bob" limit 2',),
    14: ("select id from User offset 0 limit 10",),
    15: ("User offset 2 limit 8",),
    16: ("User order by first_name desc",),
    17: ("User order by first_name offset 5 limit 5",),
    18: (
        "select id, user_id, status, created_at, data from Job where status in "
        '("queued", "running")',
    ),
    19: ('select id, status from Job where id in ("<id>","<id>")',),
    20: ("select id, data from Job where id is '<id>'",),
    21: ('select id from Job where (id is "<id>") offset 0 limit 500',),
    22: ("select status, data from Job where id in (e6a1-..,9350-..) offset 0 limit 500",),
    23: ("select job_components from Job where id is <id> offset 0 limit 500",),
    24: (
        "select component.id, component.system_type from JobComponent where "
        '(component_id is "c1"and job_id is "j1") offset 0 limit 500',
    ),
    25: (
        'select url from JobComponent where (component_id is "c1"and job_id is "j1") '
        'or (component_id is "c2"and job_id is "j1") offset 0 limit 500',
    ),
    26: (
        "select component_id, resource_identifier from ComponentLocation where "
        "location_id is <uuid> and component_id in (<uuid>, <uuid>) offset 0 limit "
        "500",
    ),
    27: ("ComponentLocation where component_id is <uuid> and location_id is <uuid>",),
    28: ('Location where name is "ftrack.server"',),
    29: ("select id from Location offset 0 limit 500",),
    30: ('Timer where user_id = "<id>"',),
    31: ('Timer where user.username is "bob"',),
    32: (
        "select version, asset.versions.version from AssetVersion where asset_id "
        "is_not None limit 1",
    ),
    33: ("select status.state.short from Task where status.state.short is NOT_STARTED limit 2",),
    34: ('select link from Task where assignments any (resource.username = "bob")',),
    35: ('Task where custom_attributes any (key is "my_text_field" and value is "bar")',),
    36: (
        "select username from User where custom_attribute_links_from any "
        '(configuration.key is "supervisor" and context.bid > 1)',
    ),
    37: ('Sequence where metadata any (key is "frame_padding" and value is "4")',),
    38: (
        'TypedContext where name is "sh" and parent[TypedContext] has (name is "sq" '
        'and project.name is "p")',
    ),
    39: (
        "select name from Project where allocations.resource[Group].memberships any "
        '(user.username is "john_doe")',
    ),
    40: (
        'Note where parent_id is "v" or parent_id in (select id from '
        'ReviewSessionObject where version_id is "v")',
    ),
    41: (
        "select id, system_type, name, size, file_type, container_id, version_id, "
        "version.asset_id, version.asset.name from Component where version_id is "
        "<id> order by name, file_type, id",
    ),
    42: ("select id, name, sort, color from Status order by sort desc, name asc limit 200",),
    43: (
        "select project, priority, assignments.resource.username, link, status.name "
        'from Task where assignments any (resource.username = "bob") and status.name '
        'not_in ("Omitted", "On Hold", "Completed") and project.status is "active" '
        "order by priority.sort limit 10",
    ),
    44: ('select id from Setting where name is "storage_scenario" and group is "STORAGE"',),
    45: (
        "select id, key from CustomAttributeConfiguration where entity_type is "
        "AssetVersion or is_hierarchical is True",
    ),
    46: (
        'select id, size from Component where version_id in ("a","b") and '
        'component_locations.location.name in ("ftrack.server","ftrack.review")',
    ),
    47: ('Note where date > "2018-05-01"  and date < "2018-06-01"',),
    48: ('select id from Asset where\n context_id is "c" and\n name is "n"\n limit 1',),
    49: (
        'select value from Metadata where key is "k" and parent_type is "User" and '
        'parent_id is "<id>"',
    ),
    50: ('select id, component_locations.url.value from Component where id is "<id>" limit 1',),
    51: (
        'date before "1970-01-01T00:00:00+00:00"',
        'date after "..."',
    ),
    52: (
        'id in (123, "abc")',
        "id in (none)",
    ),
    53: (
        "not version is 5",
        "not (version is 5 or version is 6)",
        "not id in (1,2)",
    ),
    54: (
        r'data like "%\"value\"%"',
        r'name like "%\%abc\%%"',
    ),
    55: (
        'select name, bid from FtrackTask where ((((bid > 10) and (name like "%foo" '
        'and name like "bar%")) and name like "%foobar%") and ((parent.parent.name = '
        '"baz") or parent.children any (((name = "fuz") and (parent.name = '
        '"blah"))))) order by name descending offset 5 limit 10',
    ),
    56: ('select thumbnail from User where username is "bob"',),
    57: ('select id from Job where id is "zz" and status is "queued" and data is "..." limit 2',),
}
_PLACEHOLDER = re.compile(r"<id>|<uuid>|[0-9a-f]{4}-\.\.|\.\.\.")
_FRAGMENT = re.compile(r"not |(date|id|data|name) ")


def example(number: int, *values: str, nth: int = 0) -> str:
    """Return the text of an example, its placeholders replaced by *values* in their order."""
    text = EXAMPLES[number][nth]
    if not values:
        return text
    left = list(values)
    filled = _PLACEHOLDER.sub(lambda _: left.pop(0), text)
    assert not left, f"example {number} has fewer placeholders"
    return filled


def whole_queries() -> list[str]:
    """Return all examples, with fragments completed and placeholders replaced by a name."""
    texts = [_PLACEHOLDER.sub("x", text) for each in EXAMPLES.values() for text in each]
    texts = [re.sub("^x from", "select x from", text) for text in texts]
    return [f"Job where {text}" if _FRAGMENT.match(text) else text for text in texts]
