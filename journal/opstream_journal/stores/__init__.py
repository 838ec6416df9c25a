"""What is kept beside the journal: one module for each bucket or stream, named by what it keeps.

`snapshots` is the view, `action_catalog` what runners offer. `resource_locks` and `rate_limiter` share the bucket of
locks. `timers` are scheduled messages, `dead_letters` is the stream PARKED, `webhook_deliveries` the queue of webhooks.
Any of them may be behind the journal, or lost; the journal decides. No store imports another, except that several
schedule messages with `timers`.
"""
