"""The one failure of a benchmark that is told as a sentence: `run` and `report` print it and end with status 1."""


class BenchmarkError(Exception):
    """Something that the benchmark needs is missing, did not start, or answered wrongly."""
