"""Side-by-side measurements of the runtime and its peers on one core: `python -m benchmarks.run`, then `.report`."""
