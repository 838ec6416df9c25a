"""Bulk operations: one operation that retries or cancels all that a filter selects (docs/adr/0063). Pure.

Begin at `records.BulkInput`, what one is asked for, and `records.BulkProgress`, what it has done. The events have both,
so nothing of events, states or decisions is known here.
"""
