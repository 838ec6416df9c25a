"""What clients read of payloads: the files of operations, and inputs and results that are too large for an event.

Begin with `desk` (which payload a request means, and its bytes); `ranges` parses the header `Range`. Not allowed in:
the stores themselves, which are in `opstream_payloads`, and routes.
"""
