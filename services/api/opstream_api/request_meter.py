"""Counts HTTP requests by the template of their path, so that no client can make a series of its own."""

from __future__ import annotations

from opstream_journal.metrics.instruments import SHORT_SECONDS, Count, Counts, Histogram, Histograms, Instrument

from .http.request_log import path_template


class RequestMeter:
    """The requests of one process."""

    def __init__(self) -> None:
        self._requests = Counts(
            "opstream_http_requests",
            "HTTP requests by route and status code, when the answer begins. Sum over processes.",
            *("route", "status"),
        )
        self._seconds = Histograms(
            "opstream_http_request_seconds",
            "From the head of a request to the begin of its answer; a read with 'Prefer: wait' waits in between. Sum "
            "over processes.",
            "route",
            bounds=SHORT_SECONDS,
        )
        self._series: dict[tuple[str, int], tuple[Count, Histogram]] = {}

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """What the page shows."""
        return (self._requests, self._seconds)

    def count(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered with a status code after so many seconds."""
        route = path_template(method, path)
        series = self._series.get((route, status))
        if series is None:
            series = self._series[route, status] = self._requests.of(route, str(status)), self._seconds.of(route)
        series[0].value += 1
        series[1].observe(seconds)
