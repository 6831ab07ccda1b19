"""The ftrack wire protocol as pure functions: no I/O, no clock, no randomness.

Operations become payloads (:mod:`.operations`, :mod:`.batching`), answers become values
(:mod:`.wire`, :mod:`.values`), query templates become text (:mod:`.query`), schema documents
become facts about entity types (:mod:`.schemas`). Everything above is thin.
"""
