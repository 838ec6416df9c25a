"""Traces of what services do (ADR 0054): the interface that they call, and its implementation with OpenTelemetry.

Begin with `tracer.py`. `otel.py` is imported only where tracing is on, since its library takes 20 MiB and is an extra.
This folder is in schemas because the process of an isolated action uses it, which loads no other shared code.
"""
