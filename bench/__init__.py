"""Measures opstream beside the raw pipeline that it stands on. `make bench` runs it; tests never do."""
