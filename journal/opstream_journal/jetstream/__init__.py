"""jetstream."""
