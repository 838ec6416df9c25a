"""Bulk operations: `POST /status:retry` and `POST /status:cancel`, for all that a filter selects (docs/adr/0063).

Begin at `desk.BulkDesk`, which takes the requests, and `executor.BulkExecutor`, which runs them. What is done to one
operation is in `operations/`, so nothing here decides what a caller may do.
"""
