"""The history as the broker holds it, for auditors: read events, verify hash chains, sign checkpoints.

Begin with `event_reader`, which reads the journal or its archive and reports what it had to skip. `chain_verifier`
checks the chains, compares them with the `checkpoint_file`, and prints what it finds; `signing_keys` reads and makes
the keys of checkpoints. `parquet_columns` makes rows of events.

Modules here read the broker, and write local files only. A file, a key or a stream that can't be used is a
`CommandError`, which has the exit status. Options belong to `cli`, which nothing here imports.
"""
