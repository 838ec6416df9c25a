"""The parts about runners: one that is killed, and one that finds a long queue. Start at `benchmark`."""
