"""Schedules in the Python client: what can be done with them, and what a service says of one (docs/schedules.md).

Begin with `calls`: `client.schedules` of each client. `flows` has the logic without I/O, `models` what callers get.
"""
