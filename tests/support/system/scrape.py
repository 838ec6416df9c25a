"""Reads `/metrics` of a service as Prometheus does, with the parser of its client."""

from __future__ import annotations

from typing import Final, NamedTuple

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families

ACCEPT: Final = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
"""What Prometheus sends."""


class Scrape(NamedTuple):
    """One page."""

    values: dict[tuple[str, frozenset[tuple[str, str]]], float]
    """By the name and the labels of each line."""
    kinds: dict[str, str]
    """Of each family, by the name that queries use: that of a counter ends with `_total`."""
    label_names: dict[str, set[str]]
    """Of each family that has a series; without the `le` of a histogram."""

    def value(self, name: str, **labels: str) -> float:
        """Return one number; 0 for a series that is not there."""
        return self.values.get((name, frozenset(labels.items())), 0.0)

    def series(self, name: str) -> list[dict[str, str]]:
        """Return the labels of all lines with a name."""
        return [dict(labels) for found, labels in self.values if found == name]


def scrape(http: httpx.Client, url: str) -> Scrape:
    """Ask for the page below a URL."""
    answer = http.get(f"{url}/metrics", headers={"Accept": ACCEPT})
    assert answer.status_code == 200, answer.text
    page = Scrape({}, {}, {})
    for family in text_string_to_metric_families(answer.text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        page.kinds[name] = family.type
        for sample in family.samples:
            page.values[sample.name, frozenset(sample.labels.items())] = sample.value
            page.label_names.setdefault(name, set()).update(set(sample.labels) - {"le"})
    return page
