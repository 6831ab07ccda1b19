"""Authentication: API keys, and the users that they belong to."""
