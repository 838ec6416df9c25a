"""The part `throughput`: operations of opstream beside the raw pipeline that they stand on. Start at `benchmark`."""
