"""The projector's part in the index (`opstream_index`): it writes what the view holds, and catches up with the rest.

Begin with `index_keeper`, which stores each batch and keeps the mark of how far the index is; `catch_up` reads the part
of the view that the index lacks: all of it for a new one. Not allowed in: SQL, and decisions about operations.
"""
