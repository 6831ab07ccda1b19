"""The ftrack wire protocol as pure functions: no I/O, no clock, no randomness.

Operations become payloads (:mod:`.operations`, :mod:`.batching`), responses become values
(:mod:`.wire`, :mod:`.values`), query templates become text (:mod:`.query`), schema documents
become facts about entity types (:mod:`.schemas`). Two modules decide what is safe:
:mod:`.references` finds the entities that an operation depends on, and :mod:`.reconciliation`
finds out which operations of a request are done after its response was lost.
"""
