"""Files in the Python client: uploads before a submit, and downloads of an operation's files (docs/payloads.md).

Begin with `upload_flow` and `download_flow`, which decide as the other flows do. `upload_source` and `part_file` read
and write the files on this machine; nothing is held in memory but a piece.
"""
