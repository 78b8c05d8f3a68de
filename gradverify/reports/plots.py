"""Figures of a finding as inline SVG, by matplotlib where it is installed; the same numbers give the same bytes."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import Any

from gradverify.records.finding import Gradient

_INK, _DATA, _MARK = "#010203", "#2f81f7", "#d9730d"
"""What is black in the figure takes the colour of the page's text; the others show on light and dark alike."""

_ID = re.compile(r'(\bid="|url\(#|href="#)')
_MOST_POINTS = 500


def available() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def scatter(gradient: Gradient, *, prefix: str) -> str:
    """What backward returned against the true gradient, with the fitted slope and the line of equality."""
    true, returned = gradient.numeric[:_MOST_POINTS], gradient.analytic[:_MOST_POINTS]
    figure, axes = _axes("true", "returned")
    low, high = min(true), max(true)
    axes.axline((0, 0), slope=1, color=_INK, linewidth=0.8, linestyle=":")
    axes.plot([low, high], [slope(gradient) * low, slope(gradient) * high], color=_MARK, linewidth=1)
    axes.plot(true, returned, "o", color=_DATA, markersize=3.5)
    said = f"returned against true gradient of {gradient.argument}, slope {slope(gradient):.4g}"
    return _svg(figure, prefix=prefix, label=said)


def slope(gradient: Gradient) -> float:
    """The least-squares factor between returned and true gradient."""
    pairs = [(a, n) for a, n in zip(gradient.analytic, gradient.numeric, strict=True) if math.isfinite(a + n)]
    whole = sum(n * n for _, n in pairs)
    return sum(a * n for a, n in pairs) / whole if whole else math.nan


def curve(points: Sequence[tuple[float, float]], steps: Sequence[float], *, prefix: str) -> str:
    """Error of central differences against their step, both logarithmic; the steps that were used are marked."""
    figure, axes = _axes("step h", "error")
    axes.set_xscale("log", base=10)
    axes.set_yscale("log", base=10)
    shown = [(h, e) for h, e in points if h > 0 and e > 0]
    for h in steps:
        axes.axvline(h, color=_MARK, linewidth=0.8, linestyle="--")
    axes.plot([h for h, _ in shown], [e for _, e in shown], "o-", color=_DATA, markersize=3, linewidth=1)
    return _svg(figure, prefix=prefix, label="error of central differences against their step")


def _axes(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6, 2.6))
    figure.subplots_adjust(left=0.18, right=0.97, bottom=0.18, top=0.96)
    axes = figure.subplots()
    axes.set_xlabel(x, color=_INK, fontsize=8)
    axes.set_ylabel(y, color=_INK, fontsize=8)
    axes.tick_params(colors=_INK, labelsize=7, which="both")
    axes.patch.set_alpha(0)
    for spine in axes.spines.values():
        spine.set_color(_INK)
    return figure, axes


def _svg(figure: Any, *, prefix: str, label: str) -> str:
    import matplotlib as mpl
    from markupsafe import escape

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "gradverify", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = _ID.sub(rf"\g<1>{prefix}-", text).replace(_INK, "currentColor")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1).strip()
