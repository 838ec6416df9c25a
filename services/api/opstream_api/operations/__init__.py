"""What requests do to operations: submit, read, wait, cancel, follow.

Start with `submit.Submitter` and `status.StatusReader`. Modules here use the journal and raise `ApiError`; they know
parsed requests and error codes, but no routes, headers or responses.
"""
