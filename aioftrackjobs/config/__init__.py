"""What a session is told: arguments, settings, waiting times, and values that are not shown."""
