"""How long queues are, and how old what is in them: read from the broker for gauges, a few requests at a time.

Begin with `queue_look`, which looks at the queues of all actions; `queue_tally` counts what it finds, and is pure.
Every number is a moment old and may come from any replica, so it is to be shown.

Not allowed in: anything that decides, and anything that reads the journal from its beginning.
"""
