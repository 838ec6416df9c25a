"""From delivered events to written snapshots.

Begin with `projector`: it collects a batch, `event_batch` decodes and groups it by operation, `batch_writer` writes
what is sure as atomic batches, `snapshot_writer` brings one snapshot up to date, whatever has to be read for that,
`snapshot_fold` says what the next snapshot is and how long it lives, and `snapshot_cache` saves reads. Only `projector`
acknowledges messages. Code that reads the whole journal belongs in `consistency/`.
"""
