"""What a service process needs besides the journal: its start and stop, its health, and loops over its messages.

Begin with `service` (from the start of a process to the signal that ends it) and `pull_worker` (a loop over one pull
consumer). `worker_pool` is that loop for messages that are worked on side by side. `health` answers probes,
`conditions` is what it says besides, and `broker_monitor` finds some of that. `crash_points` lets a test end a process
between two steps; the journal and the stores use it, too. Nothing here knows what an operation is.
"""
