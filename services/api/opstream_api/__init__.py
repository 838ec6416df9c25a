"""The HTTP service of opstream: submit, status, cancel, history and the documents about them (docs/contract.md).

Start with `app.py`, which has the routes, and `main.py`, which builds and serves the app. `http/` reads requests and
builds responses, `operations/` does what a request asks for, `openapi/` and `asyncapi/` describe the service. Decisions
about operations do not belong here: they are pure functions of `opstream_schemas`.
"""
