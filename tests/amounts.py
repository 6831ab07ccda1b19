"""How much the tests try: a little by default, a lot in ``nox -s long``.

The switch is the profile of hypothesis: ``pytest --hypothesis-profile=long``.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("default", max_examples=25, deadline=None)
settings.register_profile("long", max_examples=500, deadline=None)
settings.load_profile("default")


def amount(default: int, long: int) -> int:
    """Return how many times to try something in this run."""
    return long if settings.get_current_profile_name() == "long" else default
