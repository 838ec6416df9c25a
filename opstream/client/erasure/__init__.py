"""Erasure in the Python client: making a confidential operation unreadable for good (docs/confidential.md).

Begin with `erase_flow`: `client.erase` of each client drives it. It does no I/O, as the other flows, and knows no
service but by HTTP.
"""
