"""The load of each action now: what runs, what waits and for what, how many operations begin and end, and which fail.

Begin with `look.LoadWatch`. It asks the broker alone, so that it works while API, projector or index don't: what there
is at one moment as `opstream actions` does, and what happened within a minute from the journal (`recent`, pure).
"""
