"""Faults: what can go wrong, when it does, and the middleware that injects it."""
