"""LitServe: an API with batching."""
