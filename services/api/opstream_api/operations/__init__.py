"""What requests do to operations: submit, read, wait, cancel, follow.

Start with `submit.Submitter` and `status.StatusReader`. Modules here use the journal and raise `ApiError`; they know
parsed requests, bodies and error codes, but no routes and no responses. Headers appear in two places only: as the
`target` of an error, and in `history`, which has those of its stream.
"""
