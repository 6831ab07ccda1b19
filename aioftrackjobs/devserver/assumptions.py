"""What this server does where the behaviour of a real one is not known.

``docs/protocol.md`` marks these as unknown or inferred; for each, the server does what is
easiest for clients and contradicts no source. They stand in one place so that they can be checked.
"""

from __future__ import annotations

ASSUMPTIONS: tuple[str, ...] = (
    "A batch is one transaction; a query in it sees what earlier operations of it wrote.",
    "Required attributes and foreign keys are checked when all operations of a batch are done.",
    "Without strict mode errors are sent with status 200; bodies and addresses that no client "
    "sends are refused with 4xx in any mode.",
    "In strict mode: 400 ParseError and TransferError, 401 InvalidCredentialsError, "
    "403 PermissionError, 404 EntityNotFoundError, 409 DuplicateEntryError and IntegrityError, "
    "422 ValidationError, 501 UnsupportedOperationError.",
    "A request takes 32 MiB and 10 000 operations, a query 512 Ki characters, a list 20 000 "
    "entries, a file 1 TiB and 10 000 parts; a body or file that stops arriving is abandoned after "
    "30 s, with 408.",
    "A response takes 64 MiB, and the rows that are read for it about as much; a query that finds "
    "more is a ValidationError. Big responses that are not read yet take 128 MiB together: others "
    "wait for 300 s, and are then refused with 503 and Retry-After. A client that reads nothing "
    "for 30 s is disconnected.",
    "16 uploads, parts of files among them, are received at the same time. Others wait for 300 s, "
    "and are then refused with 503 and Retry-After: the official JavaScript client does not repeat "
    "a part that is refused.",
    "Updating or deleting what does not exist is an EntityNotFoundError.",
    "Deleting what an earlier operation of the same batch may have deleted by cascade is not an "
    "error.",
    "Changing an immutable attribute that has a value is a ValidationError; repeating the value "
    "is not.",
    "An unknown action is a ValidationError with the text that the official client searches for.",
    "A personal key acts as its user only, a global key as any active user, and for reading also "
    "as one who does not exist; inactive and deleted users are refused. A key stays with its user "
    "also when the name changes. The keys of serve, of the seed and of fixtures are personal.",
    "Users with the security role Administrator, the user that the server is started for, and "
    "global keys are administrators: they reset any user's key, and change security roles, by "
    "operations and as entities. For others both are a PermissionError. Of permissions the server "
    "names these two only: every user may change everything else, and may set attributes that name "
    "another user. Operations on roles have true as their result.",
    "A user without a name gets a unique one.",
    "Unknown attributes in create and update are refused, or ignored if that is chosen.",
    "Values of custom attributes are checked against the type of their attribute: text, url and "
    "expression are texts, enumerators a text or a list of texts, of any choice.",
    "The caller becomes a recipient of a new note at the end of the batch, unless it is one. The "
    "first label of a note is its category; a category alone is no label.",
    "A StatusChange is kept when an entity gets another status, not when it is created; it is no "
    "part of ftrack.update.",
    "The page /user/api_credentials asks for user and key, or takes them from the usual headers, "
    "and sends api_user and api_key to a redirect_url on this or a trusted host.",
    "A new key is valid at once, and the earlier one no longer.",
    "Pages of this machine and of trusted hosts may call (CORS), with credentials; others, and "
    "requests under other names, are refused with 403 and a JSON object.",
    "Usernames are unique, and a user has one running timer.",
    "Entities have a value of each custom attribute for their kind, object type and project, and "
    "of hierarchical ones. It starts as the configuration's default at that time, also after its "
    "deletion. A configuration for tasks without an object type is for all of them.",
    "Updating a value of a custom attribute that does not exist creates it, and creating one that "
    "exists updates it.",
    "Grouping needs strict mode, either by header or by option.",
    "A search finds entities in which every term occurs, whatever its case, in one of their name, "
    "label, description, content, comment, email or the parts of a user's name; a context narrows "
    "it to what is below that, object types to typed contexts of these. Its expression may have "
    "all that a query has but grouping.",
    "query_server_information leaves out values that it does not know; there are no licences.",
    "encode_media makes a JPEG of an image, and of a video a copy under its own type and a grey "
    "PNG; all by the file type of the component. Outputs exist at once, and get their file, size, "
    "location and ftr_meta when the Job is done; then the picture is the version's thumbnail. What "
    "is neither image nor video has no output, and the Job fails. A movie that is not MP4 or "
    "QuickTime is said to have no frames, at 25 per second.",
    "Jobs that the server runs have the default type and belong to the caller; they run one after "
    "the other. A failed one has the reason in 'error' within its data. Those not done when the "
    "server stops fail, or when it starts again if it was killed. It knows them by "
    "'worked_on_by_server' in their data, which clients do not change.",
    "There is no LDAP, no iconik and no export of review sessions: delayed_job is refused with "
    "UnsupportedOperationError.",
    "Invitations are reported as sent, but no mail is sent.",
    "Widgets are pages that name the widget.",
    "A thumbnail fits into its size (300 by default, 4096 at most) and is never enlarged; JPEG, "
    "or PNG for images with transparency. Without Pillow it is an UnsupportedOperationError.",
    "The ETag of a part is its MD5 digest. Completing an upload names every part once; parts that "
    "are not completed are removed after a day. They stay for the next server with the same "
    "database and storage folder; without a database they are removed when the server stops.",
    "Addresses of files do not expire: they are valid for all servers with the same database, each "
    "for one purpose. A file must have the announced size and digest, a part may have any size up "
    "to the file's, and either may be sent again, in place of the earlier one. The component need "
    "not exist.",
    "The server sets created_at, date, thread_activity and required dates at creation, and "
    "created_by_id to the acting user, unless they are sent.",
    "finished_at is set when a status becomes done or failed, and cleared when work is reopened.",
    "Flags that are not sent are false, required numbers zero; a required entry of a "
    "vocabulary, such as a task's status, is its first.",
    "An entity that is created below a parent belongs to the parent's project.",
    "An entity cannot be below itself: parents, containers or replies in a cycle are a "
    "ValidationError.",
    "Deleting an entity deletes those that require it, those that always name it (system "
    "projections), its children, its metadata and notes, and the replies to a note; other "
    "references are cleared.",
    "Members that are removed from a collection are deleted if they need an owner.",
    "Collections that no key and no type of the schemas stores, such as scopes, are written and "
    "read like others; a dump does not have them.",
    "A list of typed contexts takes all types of them. A result repeats the collections that the "
    "operation wrote.",
    "A version without a number gets the one after its asset's highest. The latest has the "
    "highest, published or not; of equal ones it is the youngest.",
    "like ignores the case of ASCII letters; is and in do not. An underscore in a pattern is an "
    "ordinary character. Keywords may be written in any case.",
    "Comparing with an attribute that has no value is neither true nor false, as in SQL; the "
    "tests any and has are always true or false.",
    "Without order by, entities come in the order of their creation.",
    "in () finds nothing; none in a list finds entities without a value.",
    "Computed addresses have a signature for one file, not the caller's API key; a component "
    "location's address is in 'value', a thumbnail's in 'url'.",
    "A version belongs to the acting user unless another is named. Its link is that of the asset's "
    "context, and then itself as 'plate v1'.",
    "time_logged is the sum of the timelogs of that context alone, not of those below it; "
    "bid_time_logged_difference is the bid less that.",
    "Event hub: ids of subscribers are unique on their connection. What cannot be done is said in "
    "the acknowledgement, or, for a frame without a number that is no event, in a frame of type 7; "
    "the socket stays open. The server changes nothing in an event, and keeps none for clients "
    "that are not connected. Expressions: '*' at the end stands for any rest, values are texts, "
    "and comparing a number by order is false.",
    "Event hub: a heartbeat every 5 s; a client that sends nothing for 60 s is disconnected, as is "
    "one for which 8 Mi characters wait. A frame takes 1 Mi characters, a connection 1000 "
    "subscriptions.",
    "ftrack.update: a batch is one event, or several if it does not fit into a frame. It has what "
    "the operations and the server itself have changed, in any table; entityType is the alias of "
    "the type in lower case. A value of a custom attribute is a change of its entity, under its "
    "key. parents are empty outside of projects. There is no clientToken and no pushToken. That "
    "changes of Jobs are events is an extension: no source shows that.",
    "The type Event has a row for each entity in these events, with ascending ids: action is "
    "'update.task' or the like, data is the entity in the event, as JSON. The last 50 000 are "
    "kept.",
    "Deleting a component leaves its file until the server's storage folder is removed, or "
    "/component/remove is called, which also removes the parts of uploads that are not completed.",
)
