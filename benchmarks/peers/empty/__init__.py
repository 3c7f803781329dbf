"""The ceiling."""
