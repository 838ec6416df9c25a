"""One operation: the state that its events fold to, and every decision that is made from that state. Pure.

Begin with `state` (what is known of an operation), then `fold` (events to state) and `commands` (a command and a state
to the next event). `dispatch_decision` is the runner's table for a delivered message; `resource_lock`, `rate_limit` and
`backoff` decide when an attempt may begin; `forced_end` ends an operation whose messages can't be folded.

Not allowed in: I/O, a clock or randomness (`now` and the jitter are parameters), subjects, names of streams, and HTTP.
Stream sequences are allowed: events refer to each other by them.
"""
