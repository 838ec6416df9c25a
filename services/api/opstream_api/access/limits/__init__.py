"""Limits of each caller of a service that asks for credentials: how many requests it may send, and how much it may have
open (docs/adr/0052).

Start with `request_limit.RequestLimit`, which is arithmetic only; `request_exchange` shares it among the API
processes. `open_operations.OpenOperations` counts, by what `open_survey` finds and follows.
Without an option that asks for a limit nothing here is made or called.
"""
