"""The tests of aioftrackjobs; docs/testing.md says how they are divided."""
