"""Calling a handler, stopping it, and turning its end into an outcome, in this process or in one of its own.

Begin at `invocation.py`, which makes the call; `supervision.py` waits for the end of a handler and stops it.
`child_process.py` is the runner's side of an isolated action, `child_main.py` the child's, and `child_protocol.py` has
their messages. Nothing here may import the journal or nats-py: a child process must start fast.
"""
