"""Commits: units of work, the queue, requests, and what becomes of each."""
