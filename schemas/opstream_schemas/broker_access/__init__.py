"""Who may do what at the broker: a row for each subject that a role needs, and why. Pure.

Begin at `permissions.py`; `logins.py` has the names of accounts. `opstream broker-config` writes a server's
configuration from both (docs/adr/0050). Not allowed in: a subject that is spelled here and not in `subjects.py`, but
for JetStream's own.
"""
