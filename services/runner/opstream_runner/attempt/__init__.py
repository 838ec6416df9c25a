"""One attempt, from its `started` event to the ack of its message.

Begin at `attempt.py`: it starts the handler and keeps the lease. `event_recorder.py` appends the attempt's events, and
`completion.py` holds all that happens at the end. How a handler is called and stopped does not belong here; that is
`handler`. Pulling messages and choosing attempts is `dispatch`.
"""
