"""Tracing of one process: begun before the service, and ended after it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from opstream.terminal.console import CommandError
from opstream_schemas.traces.tracer import NO_TRACING, Tracer


@contextlib.contextmanager
def tracing_session(service: str, *, is_traced: bool) -> Iterator[Tracer]:
    """Trace until the context ends; then send the last spans, for two seconds at most.

    Args:
        service: the name of the service in traces, unless `OTEL_SERVICE_NAME` has one.
        is_traced: False for tracing that is off, which imports nothing of OpenTelemetry.

    Raises:
        CommandError: OpenTelemetry is not installed, or its variables ask for what is not there.
    """
    tracing = begin_tracing(service) if is_traced else NO_TRACING
    try:
        yield tracing
    finally:
        tracing.close()


def check_installed() -> None:
    """Check that processes which are about to start can trace.

    Raises:
        CommandError: OpenTelemetry is not installed.
    """
    import importlib.util

    for name in ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.exporter.otlp"):
        if importlib.util.find_spec(name) is None:
            raise _not_installed()


def begin_tracing(service: str) -> Tracer:
    """Begin to trace, as `tracing_session` does.

    Raises:
        CommandError: as there.
    """
    try:
        from opstream_schemas.traces import otel
    except ImportError as error:
        raise _not_installed() from error
    try:
        return otel.start_tracing(f"opstream-{service}")
    except ImportError as error:
        raise _not_installed() from error
    except otel.InvalidTracing as error:
        raise CommandError(f"--otel: {error}") from error


def _not_installed() -> CommandError:
    return CommandError("--otel needs OpenTelemetry, which the extra otel brings: pip install 'opstream[otel]'")
