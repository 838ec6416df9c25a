"""What operations wait for that have not started: a runner, a limit of their action, or an exclusive resource.

`waiting_reasons` and `queue_positions` complete the status, `runner_presence` warns in the log. All of it is read from
the broker, shared by many requests, and a hint: no decision depends on it.

Not allowed in: HTTP, and anything that writes to the broker.
"""
