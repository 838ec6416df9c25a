"""The paths of what only administrators do, with the schemas of what they take and return. Pure.

Begin at `undelivered_paths.py`. Not allowed in: paths of operations and schedules, which lie one folder up.
"""
