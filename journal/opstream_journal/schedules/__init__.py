"""Schedules on the broker: the stream that has what was decided about each, and what became of its moments.

`schedule_stream` reads it, follows it, and appends to it with an expected version. What the messages mean is in
`opstream_schemas.schedules`; nothing here decides when a schedule is due.
"""
