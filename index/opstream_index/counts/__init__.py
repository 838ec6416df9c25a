"""Counts of operations, in all and by the values of a field: how many, how they stand, and how long they took.

Begin at `reader.CountReader`. A count walks as a list with the same filter does (`lists.plan`), in steps of some
thousand rows from the newest on, and the database adds up each step. So it reads what the filter's index has, never the
rest of the table, and one that takes too long ends with an exact count of the newest (ADR 0066).
"""
