"""The SQLite database: tables and triggers of a model, its statements and transactions."""
