"""The filter language of lists (`GET /status?filter=…`): text to tokens, to a tree, to a checked tree. Pure.

Begin at `checks.parse_filter`. A dialect's SQL is made elsewhere (`lists`), from the checked tree alone. What a filter
means is in docs/list.md and in ADR 0059; nothing here may depend on a database.
"""
