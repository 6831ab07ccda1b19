"""Tests of the embedded server, which talk to it as clients do."""
