"""Webhooks: tells subscribers of completed operations over HTTP. The process is `main`."""
