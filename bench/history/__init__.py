"""The parts about a long history: its disk and memory, reading all of it, folding all of it.

`archive`, `replay` and `rebuild` are parts of their own; `journal_fill` writes the events that `rebuild` reads.
"""
