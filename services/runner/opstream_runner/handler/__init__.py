"""Calling a handler, stopping it, and turning its end into an outcome, in this process or in one of its own.

Begin at `invocation.py`, which makes the call; `supervision.py` waits for the end of a handler and stops it.
`handler_loop.py` is the event loop of the async handlers, `handler_thread.py` the thread of a plain one, and
`in_process.py` uses both. `child_process.py` is the
runner's side of an isolated action, `child_main.py` the child's, `child_warden.py` is between them, and
`child_protocol.py` has their messages. Nothing here may import the journal or nats-py: a child process must start fast.
"""
