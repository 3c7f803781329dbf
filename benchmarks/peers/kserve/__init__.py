"""The kserve package's server: one file with its models, since the servers that KServe ships are not on PyPI."""
