"""Running Jobs: their life cycle, progress, data, leases and final status."""
