"""Commands that run as Jobs.

``process``, ``output``, ``progress`` and ``execution`` import nothing of this package and little
else, because ``aioftrackjobs run`` starts its command with them before it imports the rest.
"""
