"""The event hub: frames, expressions, routing, and events about what batches change."""
