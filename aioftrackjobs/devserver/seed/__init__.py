"""What a new database holds: users, vocabulary, the demo project and fixtures."""
