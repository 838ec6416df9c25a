"""What the commands of `opstream schedule` share: a session with the service, and how schedules are printed.

Begin with `session`. What a schedule is, and what may be asked of one, is in docs/schedules.md.
"""
