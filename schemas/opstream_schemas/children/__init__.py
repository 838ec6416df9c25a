"""Child operations: their ids, what an attempt asks the API for, and the decision which child begins next. Pure.

Begin at `lineage.py`, which has the ids. `plan.py` decides, `requests.py` has the messages between runners and the API.
"""
