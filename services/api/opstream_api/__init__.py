"""The HTTP service of opstream: submit, status, cancel, history and the documents about them (docs/contract.md).

Start with the routes: `app.py` has those of submits, documents and health, `status_routes.py` those below `/status`,
and `pages/` those of `/docs` and `/console`. `main.py` builds and serves the app. `http/` reads requests and builds
responses, `access/` knows who sends a request and what that principal may do, `operations/` does what a request asks
for, `queues/` knows what operations wait for, `openapi/` and `asyncapi/` describe the service. Decisions about
operations do not belong here: they are pure functions of `opstream_schemas`.
"""
