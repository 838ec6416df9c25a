"""What the document says of all actions in the same way, where that needs a page of its own. Begin with
`contract_schemas`, the schemas of what a client reads. No paths here, and nothing of one action: those are above.
"""
