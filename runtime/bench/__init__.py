"""`ml-runtime bench`: how much a server takes within a latency target, and what to set. Nothing of the server imports this."""
