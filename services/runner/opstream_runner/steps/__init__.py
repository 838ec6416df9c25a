"""Steps, as a handler calls them: `ActionContext.step` runs a function once, and later attempts get what it returned.

Begin at `step_table.py`, which has the steps of one attempt. `step_call.py` is one call of `step`, `step_values.py` has
the JSON of arguments and results. What is recorded goes out by a function that the attempt gives; nothing here knows
the journal.
"""
