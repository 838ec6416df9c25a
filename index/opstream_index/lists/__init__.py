"""Pages of a list: which index finds the rows, the SQL of each database, cursors, and the items of a page.

Begin at `reader.ListReader`. A query reads at most `plan.WINDOW` rows, whatever the filter, and only rows of the tenant
and, for a caller that may read its own operations alone, of that caller: what others have must not even cost time
(ADR 0059).
"""
