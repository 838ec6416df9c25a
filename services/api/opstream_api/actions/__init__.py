"""Actions as things: what callers see of them, and what operators do to them (docs/adr/0064).

Begin with `desk`. Not allowed in: HTTP, but for its error codes.
"""
