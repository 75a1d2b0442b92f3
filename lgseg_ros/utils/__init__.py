"""Helpers that every room uses: atomic file writes, paths, hardware facts and child processes."""
