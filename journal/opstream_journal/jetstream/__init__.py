"""The broker as this package uses it: one connection, its requests, and the two ways to receive messages.

Begin with `connection`, then `rpc` (one request, one answer; `inbox` matches them) and `batch_read`, `batch_publish`
(many messages with one request). `pull_consumer` shares a durable consumer between processes; `scans` reads a stream
alone, in order. `kv` changes keys with compare-and-set. `readiness` repeats a start.
Nothing here knows which streams there are or what an event is, except that `kv` is bound to its bucket.
"""
