"""PyTriton: Triton's own server and dynamic batcher with a model in Python."""
