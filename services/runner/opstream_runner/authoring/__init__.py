"""What authors of actions use: the decorator with its options, and the context that a handler gets.

Begin at `action.py`. The exceptions that a handler raises are in `opstream_runner.errors`. Nothing here may import
broker code: a unit test of an action loads this folder only.
"""
