"""Arguments, settings, retry policy, waiting times, and values that are not shown."""
