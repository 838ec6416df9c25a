"""Plays one operation: begin at `stage.py`, which has the lives of its runners one after the other.

`runner_life.py` is one of these lives, `crash_moment.py` the moments at which a runner may die, `request.py` the
request. What a runner does is the code of production (`opstream_runner`).
"""
