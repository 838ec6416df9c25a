"""Log lines for programs: a record as one JSON object a line (ADR 0049). Begin with `json_formatter.py`.

Every process uses it, also that of an isolated action, so nothing here imports a library, and nothing does I/O.
"""
