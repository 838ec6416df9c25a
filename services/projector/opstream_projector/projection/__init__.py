"""From delivered events to written snapshots.

Begin with `projector`: it collects a batch, `event_batch` decodes and groups it by operation, `snapshot_writer` brings
one snapshot up to date, `snapshot_fold` says what the next snapshot is and how long it lives, and `snapshot_cache`
saves reads. Only `projector` acknowledges messages. Code that reads the whole journal belongs in `consistency/`.
"""
