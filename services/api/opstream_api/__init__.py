"""The HTTP service of opstream: submit and status (contract.md)."""
