"""The contract of opstream, pure: events, operation, commands, decisions, names, subjects, errors."""
