"""From a delivered message to a decision: load the operation, look it up in the decision table, execute the row.

Begin at `dispatcher.py`. An attempt starts only when `admission.py` has its resource's lock and a slot of its rate. The
decision table is not here but in `opstream_schemas.operation.dispatch_decision`, where it is pure. What happens once an
attempt has started does not belong here; that is `attempt`.
"""
