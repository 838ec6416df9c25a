"""HTTP: reading requests and building responses.

Start with `submit_request.parse_submit`, and with `responses`. Each module reads one part of a request, raises
`ApiError` for it, and knows no journal. What a request does to an operation belongs to `operations/`.
"""
