"""Sealed values: what of a confidential operation is encrypted before the journal stores it (docs/adr/0076). Pure, but
for the random numbers.

Begin with `operation_key` (a key, and the form of a sealed value) and `sealed_events` (which members of which event are
sealed); `sealed_state` is the same for the state, `wrapped_key` is how a key itself is kept. Not allowed in: I/O, a
clock.
"""
