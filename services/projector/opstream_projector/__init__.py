"""The projector: it keeps the view up to date, and enforces the deadlines of operations.

The view is one snapshot per operation in a key-value bucket; each snapshot is the fold of the operation's events in the
journal. Begin with `main`, which composes the process, then `projection/projector.py`. `projection/` folds new events
into the view, `deadlines` and `deadline_scanner` schedule and enforce deadlines, `after_effects` says what follows from
an operation's new state, and releases locks. `consistency/` compares the whole view with the whole journal; only the
commands `opstream rebuild` and `opstream verify` use it.

The projector decides nothing else about operations: no handler runs here, and it serves no HTTP but health.
"""
