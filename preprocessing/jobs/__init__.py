"""Processes, locks, signals and files that are written atomically."""
