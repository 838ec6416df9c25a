"""HTTP: reading requests and building responses.

Start with `submit_request.parse_submit`, and with `responses`. `requests`, `conditional_headers`, `callback_header` and
`caller_identity` each read a part of a request, and raise `ApiError` if it is wrong. `header_middleware` is around
every request, `cors` too if sites are named for it; `document_cache` keeps the documents.

Modules here read and append no events. What a request does to an operation belongs to `operations/`.
"""
