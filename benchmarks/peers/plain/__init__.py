"""The service that FastAPI's tutorials write."""
