"""The page in both formats, as the parsers of prometheus_client read it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from opstream_journal.metrics.exposition import OPEN_METRICS, TEXT, content_type, render
from opstream_journal.metrics.instruments import Counts, Gauges, Histograms, ReadCounts

pytestmark = pytest.mark.unit

AWKWARD = 'a "quoted"\\ name\nof two lines'


def instruments() -> list[Any]:
    """One of each kind."""
    counts = Counts("deeds", AWKWARD, "who", "what")
    counts.of("a", AWKWARD).value += 2
    seconds = Histograms("wait_seconds", "Waits.", "who", bounds=(0.5, 1.0))
    for value in (0.25, 0.5, 0.75, 3):
        seconds.of("a").observe(value)
    gauge = Gauges("level", "A level.", read=lambda: [((), math.inf)])
    return [counts, seconds, gauge, ReadCounts("read", "Kept elsewhere.", read=lambda: [((), 1.5)])]


@pytest.mark.parametrize(("form", "parse"), [(TEXT, parse_text), (OPEN_METRICS, parse_open_metrics)])
def test_a_page_is_read_as_it_was_meant(form: str, parse: Any) -> None:
    """Both parsers find the same kinds, labels and numbers; buckets are cumulative, and an odd label is whole."""
    families = {family.name: family for family in parse(render(instruments(), form).decode())}
    assert {name: family.type for name, family in families.items()} == {
        "deeds": "counter",
        "wait_seconds": "histogram",
        "level": "gauge",
        "read": "counter",
    }
    assert families["deeds"].documentation == AWKWARD
    (deed,) = families["deeds"].samples
    assert (deed.name, deed.labels, deed.value) == ("deeds_total", {"who": "a", "what": AWKWARD}, 2)
    waits = [(one.name, one.labels.get("le"), one.value) for one in families["wait_seconds"].samples]
    assert sorted(waits, key=str) == [
        ("wait_seconds_bucket", "+Inf", 4),
        ("wait_seconds_bucket", "0.5", 2),
        ("wait_seconds_bucket", "1.0", 3),
        ("wait_seconds_count", None, 4),
        ("wait_seconds_sum", None, 4.5),
    ]
    assert [sample.value for sample in families["level"].samples] == [math.inf]
    assert [(one.name, one.value) for one in families["read"].samples] == [("read_total", 1.5)]


def test_the_scraper_chooses() -> None:
    """OpenMetrics goes only to a scraper that names it, as Prometheus does."""
    prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    assert content_type(prometheus) == OPEN_METRICS
    assert content_type("") == content_type("*/*") == TEXT


def test_an_empty_family_is_named() -> None:
    """A family without a series still has its type, so that a scrape shows what there is."""
    assert b"# TYPE level gauge\n" in render([Gauges("level", "A level.", read=list)], TEXT)
