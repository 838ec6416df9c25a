"""`opstream doctor`: what an operator should know of a running system, as findings with a next step (ADR 0049).

Begin with `examination.py`, which asks the broker and calls the checks. A check is pure: it gets what the broker said,
and yields findings. Nothing here changes anything on the broker.
"""
