"""Children: runners ask for them over the broker, and the API submits them as it submits what clients ask for.

Only the API has what a submit takes: schemas, limits, ids. A runner that could write `requested` itself could write it
in any tenant's name (docs/adr/0074).
"""
