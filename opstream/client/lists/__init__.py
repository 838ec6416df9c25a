"""Lists and counts of operations in the Python client (docs/list.md).

`flows` has the calls, without I/O; what they return is in `opstream.client.models`, and who reads the bodies is
`opstream.client.responses`. Nothing of an index or its filters is known here: a query is a text.
"""
