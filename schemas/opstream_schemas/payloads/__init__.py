"""Payloads: what is too large for an event, and lies in a store, under a name that says whose it is. Pure.

Begin with `payload_ref` (the claim check that an event has); `object_subjects` and `object_meta` are the form in which
JetStream's object store has them. Not allowed in: I/O, a store, a clock.
"""
