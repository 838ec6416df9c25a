"""The instruments: counters, histograms and gauges, each a family of one name with a series for each set of labels.

To count is to add to a plain number, which costs a tenth of a microsecond. All else is done at a scrape. Labels are
bounded: they are words of the code, status codes, or names from `ActionLabels`. Never an id, never a client's text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

Labels = tuple[str, ...]
"""The values of a family's labels, in the order of their names."""

SHORT_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds for what takes milliseconds: appends and requests."""
LONG_SECONDS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86_400.0)
"""Bounds for operations, which take from milliseconds to days."""
INFINITY: Final = "+Inf"


class Sample(NamedTuple):
    """One line of the page."""

    suffix: str
    """Follows the family's name."""
    labels: Labels
    bound: str
    """The label `le` of a bucket; empty for any other line."""
    value: float


class Instrument(Protocol):
    """A family, as the page sees it."""

    name: str
    """Without the suffix `_total`."""
    kind: str
    """`counter`, `gauge` or `histogram`."""
    help: str
    label_names: Labels

    def samples(self) -> Iterator[Sample]:
        """Read the family now."""
        ...


class Count:
    """A number that only grows, from 0 at the start of the process: add to `value`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Counts:
    """A family of counters.

    Args:
        name: without `_total`.
        explanation: what is counted, and where, in one sentence.
        label_names: of its labels.
    """

    kind = "counter"

    def __init__(self, name: str, explanation: str, *label_names: str) -> None:
        self.name = name
        self.help = explanation
        self.label_names = label_names
        self._series: dict[Labels, Count] = {}
        if not label_names:
            self.of()

    def of(self, *labels: str) -> Count:
        """Return the counter with these labels, which are of bounded number."""
        found = self._series.get(labels)
        if found is None:
            found = self._series[labels] = Count()
        return found

    def __len__(self) -> int:
        return len(self._series)

    def samples(self) -> Iterator[Sample]:
        """See `Instrument`."""
        for labels, count in self._series.items():
            yield Sample("_total", labels, "", count.value)


class Histogram:
    """How often something took how long."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """For each bound how many were between it and the one before; the last are above all bounds."""
        self.total = 0.0
        """The sum of all observed values."""

    def observe(self, value: float) -> None:
        """Add a value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Histograms:
    """A family of histograms.

    Args:
        name: with its unit.
        explanation: what is measured, from when to when, in one sentence.
        label_names: of its labels.
        bounds: the upper bounds of its buckets, ascending.
    """

    kind = "histogram"

    def __init__(self, name: str, explanation: str, *label_names: str, bounds: Sequence[float]) -> None:
        self.name = name
        self.help = explanation
        self.label_names = label_names
        self._bounds = bounds
        self._texts = (*map(repr, bounds), INFINITY)
        self._series: dict[Labels, Histogram] = {}
        if not label_names:
            self.of()

    def of(self, *labels: str) -> Histogram:
        """Return the histogram with these labels, which are of bounded number."""
        found = self._series.get(labels)
        if found is None:
            found = self._series[labels] = Histogram(self._bounds)
        return found

    def __len__(self) -> int:
        return len(self._series)

    def samples(self) -> Iterator[Sample]:
        """See `Instrument`."""
        for labels, histogram in self._series.items():
            total, count = histogram.total, 0
            for bound, number in zip(self._texts, histogram.counts, strict=True):
                count += number
                yield Sample("_bucket", labels, bound, count)
            yield Sample("_count", labels, "", count)
            yield Sample("_sum", labels, "", total)


Readings = Iterable[tuple[Labels, float]]


class Gauges:
    """A family of numbers that are read at a scrape, and may also fall.

    Args:
        name: with its unit.
        explanation: what it says, and how to put those of several processes together, in one sentence or two.
        label_names: of its labels.
        read: returns the labels and the number of each series now, without waiting; none for what is not known.
    """

    kind = "gauge"

    def __init__(self, name: str, explanation: str, *label_names: str, read: Callable[[], Readings]) -> None:
        self.name = name
        self.help = explanation
        self.label_names = label_names
        self._read = read

    def samples(self) -> Iterator[Sample]:
        """See `Instrument`."""
        for labels, value in self._read():
            yield Sample("", labels, "", value)


class ReadCounts(Gauges):
    """A family of counters that are kept elsewhere, and read at a scrape. For the arguments see `Gauges`."""

    kind = "counter"

    def samples(self) -> Iterator[Sample]:
        """See `Instrument`."""
        return (sample._replace(suffix="_total") for sample in super().samples())
