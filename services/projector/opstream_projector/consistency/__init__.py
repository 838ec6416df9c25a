"""Compares the whole view with the whole journal, and repairs it, while the system works (docs/adr/0017).

Begin with `view_scan`, which reads both and passes them on in batches. `journal_fold` folds the journal in bounded
memory, `entry_check` compares one entry, `rebuild` rewrites what differs, `verify` reports what differs, and `retry`
outlasts a broker that is away. Nothing here runs in the projector's process, and nothing here prints.
"""
