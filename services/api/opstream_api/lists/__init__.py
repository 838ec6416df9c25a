"""Lists of operations over HTTP (`GET /status?filter=…`), and counts of them (`GET /status:count?filter=…`).

Begin at `operation_list.OperationList` and `operation_counts.OperationCounts`. What a filter means, and how an index
answers it, is the business of `opstream_index`; this folder asks it in threads of its own (`index_queue`), since a
database blocks, and builds the answer.
"""
