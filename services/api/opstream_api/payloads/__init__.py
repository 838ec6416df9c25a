"""What clients read and upload of payloads: the files of operations, and documents that are too large for an event.

Begin with `desk` (which payload a request means, and its bytes) and `upload_desk` (files that come before the submit);
`ranges` parses the header `Range`. Not allowed in:
the stores themselves, which are in `opstream_payloads`, and routes.
"""
