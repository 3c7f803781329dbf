"""Clients that nobody here wrote, each in an environment of its own, driven as processes against the real server."""
