"""Instruments as text: Prometheus's format 0.0.4, and OpenMetrics 1.0 for a scraper that asks for it.

prometheus_client would take six times as long, on the event loop that answers requests (docs/adr/0048). The tests
read these pages with its parsers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from .instruments import INFINITY, Instrument, Labels

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_OPEN_METRICS_TYPE: Final = "application/openmetrics-text"


def content_type(accept: str) -> str:
    """Return the format for a request's `Accept`: OpenMetrics if it is named, otherwise Prometheus's own."""
    return OPEN_METRICS if _OPEN_METRICS_TYPE in accept else TEXT


def render(instruments: Iterable[Instrument], form: str) -> bytes:
    """Write a page.

    Args:
        instruments: each with another name.
        form: from `content_type`.
    """
    is_open = form == OPEN_METRICS
    lines: list[str] = []
    for one in instruments:
        # OpenMetrics names a counter's family without its suffix.
        family = one.name if is_open or one.kind != "counter" else f"{one.name}_total"
        lines += (f"# HELP {family} {_escaped(one.help, is_quoted=is_open)}", f"# TYPE {family} {one.kind}")
        texts: dict[Labels, str] = {}
        for suffix, labels, bound, value in one.samples():
            text = texts.get(labels)
            if text is None:
                text = texts[labels] = _label_text(one.label_names, labels)
            if bound:
                text = f'{text},le="{bound}"' if text else f'le="{bound}"'
            lines.append(
                f"{one.name}{suffix}{{{text}}} {_number(value)}" if text else f"{one.name}{suffix} {_number(value)}"
            )
    if is_open:
        lines.append("# EOF")
    lines.append("")
    return "\n".join(lines).encode()


def _label_text(names: Labels, values: Labels) -> str:
    return ",".join(f'{name}="{_escaped(value, is_quoted=True)}"' for name, value in zip(names, values, strict=True))


def _escaped(text: str, *, is_quoted: bool) -> str:
    escaped = text.replace("\\", r"\\").replace("\n", r"\n")
    return escaped.replace('"', r"\"") if is_quoted else escaped


def _number(value: float) -> str:
    return INFINITY if value == math.inf else str(value)
