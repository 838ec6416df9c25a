"""API keys: their form and their records, where the records are kept, and the registry that recognizes a key.

Start with `api_key`, then `key_registry.KeyRegistry`. Only a key's hash is in its record; what a request may do is not
decided here but by its principal's scopes.
"""
