"""Signals: which are kept, which of them a wait takes, and what the door says to one. Pure (docs/adr/0071).

Begin with `signal_book`, which the fold keeps; `signal_decision` decides about one that is sent; `wait_history` has
what the attempts of a runner need of the past.
"""
