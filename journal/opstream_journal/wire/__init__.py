"""What this package does itself with nats-py's connection, because nats-py spends too much processor time on it.

The bytes are the same that nats-py would send, and the errors the same that it would raise. nats-py still connects,
reconnects, subscribes and answers pings (docs/adr/0043).
"""
