"""The runtime itself, with its defaults."""
