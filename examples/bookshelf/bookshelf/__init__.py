"""An example: two actions that publish versions of books on an object store.

Begin with `actions`, then `shelf`, which does the work. `records` has the inputs, results and stored records, `layout`
the paths in the store, `objects` and `storage` the access to it, `input_rules` what a JSON Schema can't express. Only
`actions` may depend on opstream's runner context; everything else also works without a broker.
"""
