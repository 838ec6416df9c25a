"""Signals in the Python client: what is sent to an operation whose action waits for it (docs/signals.md).

Begin with `signal_flow`: `client.signal` of each client drives it. It does no I/O, as the other flows, and knows no
service but by HTTP.
"""
