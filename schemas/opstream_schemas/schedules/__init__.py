"""Schedules: what a caller wants to begin again and again, at which moments that is, and what became of each of them.

Begin with `schedule` (the definition and its checks), then `occurrences` (the moments, by cron or by an interval) and
`schedule_event` (what the stream SCHEDULES has, and the state that follows from it). All of it is pure: no clock, no
I/O; the zones of the operating system are read by `zoneinfo`.
"""
