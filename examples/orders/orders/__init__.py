"""An order: charged, approved by a person if it is large, shipped, and given back if it is canceled or refused.

Begin at `actions.py`: one handler of a few steps. `bank.py` and `warehouse.py` stand for two other systems, which keep
what they did in a folder. Nothing here may know how opstream works inside: it imports `opstream` alone.
"""
