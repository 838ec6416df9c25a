"""Proof that a stream holds what its writers wrote: hash chains and checkpoints. Pure.

Begin with `hash_chain`, which verifies the chain of every operation in one pass; `chain_state` is what it remembers.
`checkpoint` describes what a stream held at one time, so that a later run shows what was changed or removed since.

Not allowed in: reading streams, files and keys (`opstream/history` does that), and the fold: a verifier must not depend
on what events mean.
"""
