"""The parts about reading: a status, many clients that wait, many that follow, large inputs. Start at `benchmark`.

`benchmark` starts the system; `status_reads`, `waits`, `streams` and `validation` are processes that make the load.
"""
