"""Measures opstream: beside the raw pipeline that it stands on, and by itself. `make bench` runs it; tests never do."""
