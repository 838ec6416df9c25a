"""Lists of operations over HTTP (`GET /status?filter=…`): the parameters, whose operations to show, the page.

Begin at `operation_list.OperationList`. What a filter means, and how an index answers it, is the business of
`opstream_index`; this folder asks it in threads of its own, since a database blocks, and builds the answer.
"""
