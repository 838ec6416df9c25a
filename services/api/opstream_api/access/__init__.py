"""Access over HTTP: who sends a request (a principal), and what it may do (its scopes).

Start with `principal.Principal`; `scopes` is the grammar of what is allowed. Nothing here reads or appends an event,
and nothing knows a route: `app` and `status_routes` ask, and refuse with the errors of `opstream_api.errors`.
"""
