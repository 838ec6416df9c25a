"""One operation with thousands of children, in real processes: `python -m bench.children`, or `make children`."""
