"""Engines whose tasks run as Jobs; each module needs the extra of its name. See docs/engines.md."""
