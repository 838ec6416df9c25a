"""Steps: what an operation remembers of them, and whether one runs or is taken from the record. Pure.

Begin with `step_history.py`. The events are in `event_types/steps.py`; calling an author's function, and reading and
writing its arguments and result as JSON, is the runner's (`opstream_runner/steps`).
"""
