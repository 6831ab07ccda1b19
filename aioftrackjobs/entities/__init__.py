"""Entities of a session: the identity map, freshness of values, and queries."""
