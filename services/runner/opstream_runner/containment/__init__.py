"""What keeps an author's code from harming the process that runs it: exits, forks, logging, hostile exceptions.

Begin at `author_loop.py`, which runs an event loop whatever its tasks raise. `forks.py` is about processes that are
forked, `log_guard.py` and `contained_logger.py` about log lines, `exceptions.py` about exceptions that can't be
trusted, `json_text.py` about values that become JSON. Nothing here knows actions, handlers or the broker, and a child
process loads all of it, so it must load fast.
"""
