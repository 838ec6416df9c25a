"""Drivers: they do the I/O that a flow requests (`opstream.client.io_requests`), with httpx, and decide nothing.

`sync_driver` does it for `OperationsClient`, `async_driver` for `AsyncOperationsClient`.
"""
