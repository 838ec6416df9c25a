"""The history as the broker holds it, for auditors: read events, verify hash chains, sign checkpoints.

Begin with `event_reader`, which reads the journal or its archive and reports what it had to skip. `chain_verifier`
checks the chains and compares them with the `checkpoint_file`, whose keys are in `signing_keys`; `parquet_columns`
makes rows of events. It reads the broker and writes local files only. Options and exit statuses belong to `cli`.
"""
