"""The index: one row for each operation within its retention, in a database that answers questions about many.

Begin with `operation_row` (what a row holds, and from where), then `tables` (where it lies, with its indexes) and
`store` (how it is written and read). `location` reads the URL of an index, `drivers` opens it; `sqlite_store` and
`postgres_store` are the two databases.

The index decides nothing and is never the only copy: the projector writes it from the view, which is a fold of the
journal, and makes it again whenever it is lost. Not allowed in: HTTP, a broker, an operation's input or result.
"""
