"""Clips as arrays, the cache on disk, and the order in which samples are shown."""
