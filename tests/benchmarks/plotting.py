"""Plots of the documentation, as SVG without scripts and fonts of their own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

#: Width and height of a plot, and its margin.
_WIDTH, _HEIGHT, _MARGIN = 480, 260, 56
#: Height of a bar with the space below it, and where bars begin.
_BAR, _LEFT = 30, 220
_COLOUR = "#1f6fb2"

Points = Sequence[tuple[float, float]]


def lines(plots: Mapping[str, Points]) -> str:
    """Return plots, one below the other: logarithmic sizes, microseconds from zero."""
    parts = []
    for number, (title, points) in enumerate(plots.items()):
        parts.append(f'<g transform="translate(0 {number * _HEIGHT})">')
        parts += _line(title, points)
        parts.append("</g>")
    return _svg(_HEIGHT * len(plots), parts)


def bars(title: str, values: Mapping[str, float]) -> str:
    """Return a plot with a bar for each of *values*, which are seconds, in microseconds."""
    parts = [f'<text x="16" y="24" font-weight="bold">{escape(title)}</text>']
    room, most = _WIDTH - _LEFT - _MARGIN, max(values.values())
    for number, (name, seconds) in enumerate(values.items()):
        top, width = 40 + number * _BAR, room * seconds / most
        parts += [
            f'<text x="16" y="{top + 15}">{escape(name)}</text>',
            f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="20" fill="{_COLOUR}"/>',
            f'<text x="{_LEFT + width + 6:.1f}" y="{top + 15}">{1e6 * seconds:,.0f} us</text>',
        ]
    return _svg(50 + _BAR * len(values), parts)


def _svg(height: int, parts: Iterable[str]) -> str:
    begin = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12">'
    )
    return "\n".join([begin, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def _line(title: str, points: Points) -> list[str]:
    last, top = math.log10(points[-1][0]) or 1.0, 1.2 * max(seconds for _, seconds in points)
    floor, right = _HEIGHT - _MARGIN, _WIDTH - _MARGIN
    places = [
        (
            _MARGIN + (right - _MARGIN) * math.log10(size) / last,
            floor - (floor - _MARGIN) * seconds / top,
        )
        for size, seconds in points
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    middle = 'text-anchor="middle"'
    parts = [
        f'<text x="{_MARGIN}" y="24" font-weight="bold">{escape(title)}</text>',
        f'<path d="M{_MARGIN} {_MARGIN}V{floor}H{right}" stroke="gray" fill="none"/>',
        f'<polyline points="{line}" stroke="{_COLOUR}" stroke-width="2" fill="none"/>',
    ]
    for (x, y), (size, seconds) in zip(places, points, strict=True):
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_COLOUR}"/>',
            f'<text x="{x:.1f}" y="{y - 8:.1f}" {middle}>{1e6 * seconds:,.0f} us</text>',
            f'<text x="{x:.1f}" y="{floor + 16}" {middle}>{size:,.0f}</text>',
        ]
    return parts
