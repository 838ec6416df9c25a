"""Backup and restore of everything that opstream has on a broker, while the system works (docs/adr/0051).

Begin with `stream_plan`, which says what is copied and in which order, then `backup` and `restore`, the two ways
through it. `snapshot_transfer` speaks JetStream's own protocol of snapshots; `stream_tail` adds what changed while one
was made. `manifest` and `backup_folder` are the format on the disk; `reconciliation` makes the restored streams fit
together.

Nothing here reads the files of a broker, and nothing knows what an event means: the journal decides, and it is copied
byte for byte. Options belong to `cli`, which nothing here imports.
"""
