"""Creates, updates and deletes: payloads, defaults, collections and the hierarchy."""
