"""Schedules in the API: callers make them, and each process submits what is due of them (docs/adr/0061).

Begin with `schedule_book` (the schedules as this process knows them), then `ticker` (submits what is due) and `desk`
(what callers ask for). `submits` turns a moment into the submit of an operation, in the name of who made the schedule.
Not allowed in: HTTP, but for its error codes.
"""
