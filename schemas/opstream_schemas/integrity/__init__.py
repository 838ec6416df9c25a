"""Proof that a stream holds what its writers wrote: hash chains and checkpoints. Pure.

Begin with `hash_chain`, which verifies the chain of every operation in one pass; `chain_state` is what it remembers.
`checkpoint` describes what a stream held at one time, so that a later run shows what was changed or removed since.
`archive_subjects` has the names of copied events.

Not allowed in: reading streams, files and keys (`opstream/history` does that), and folding: a verifier must not depend
on what events mean. It knows one meaning only, that of a forced end (`operation.fold.forced_end_of`), since this event
says which messages before it are out of the chain.
"""
