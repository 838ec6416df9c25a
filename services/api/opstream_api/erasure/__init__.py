"""Erasure of confidential operations. Begin with `erasure_desk`, which decides what becomes of a request to erase one.

Not allowed in: HTTP, which is in `routes/erasure_routes.py`, and the keys, which are in `opstream_journal.keys`.
"""
