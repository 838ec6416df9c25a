"""Gauges of the queues of all actions: what waits for which reason, how far the projector is behind, late timers.

Begin with `queue_gauges`, which reads them from the broker when a scrape asks.

Not allowed in: anything that decides about operations or writes to the broker.
"""
