"""A directory with a model in, a fast and honest HTTP service out. DESIGN words: model, version, row, batch, lane, worker."""

__version__ = "0.1.0"
