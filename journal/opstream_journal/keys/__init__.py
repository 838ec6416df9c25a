"""The keys of confidential operations (docs/adr/0076).

Begin with `operation_keys`, which makes, finds and destroys them; `kek_ring` has the key-encryption keys of a process,
which wrap them.
"""
