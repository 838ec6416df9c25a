"""How long the first page of a list takes in an index of a million operations, for each example of docs/list.md.

It needs no broker: the rows are written as the projector writes them, and read as the API reads them.
"""
