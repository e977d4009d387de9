"""Draw throughput against p99: ``python -m benchmarks.batching.plot LINES.jsonl PICTURE.svg``.

One curve a system, one dot a number of callers; up and to the left is better. An SVG by hand, so
that nothing has to be installed for it.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

_WIDTH, _HEIGHT, _EDGE = 760, 460, 70
_COLOURS = ("#0b6e4f", "#3fa34d", "#c1440e", "#3d5a80", "#8a6fb0", "#777777")


def draw(lines: list[dict[str, object]]) -> str:
    """Return the picture."""
    points: dict[str, list[tuple[float, float, int]]] = {}
    for line in lines:
        if line.get("measure") == "curve":
            x, y = float(str(line["p99_ms"])), float(str(line["tokens_per_s"]))
            if math.isfinite(x) and y > 0:
                points.setdefault(str(line["system"]), []).append((x, y, int(str(line["callers"]))))
    if not points:
        raise SystemExit("no lines of measure 'curve' in there; run with --only curve")
    flat = [p for found in points.values() for p in found]
    low, high = math.log10(min(p[0] for p in flat)), math.log10(max(p[0] for p in flat))
    top = max(p[1] for p in flat) * 1.05

    def place(p: tuple[float, float, int]) -> tuple[float, float]:
        share = (math.log10(p[0]) - low) / max(1e-9, high - low)
        return _EDGE + share * (_WIDTH - 2 * _EDGE), _HEIGHT - _EDGE - p[1] / top * (
            _HEIGHT - 2 * _EDGE
        )

    parts = [_text(_WIDTH / 2, 24, "tokens/s against p99 (ms, logarithmic); dots: callers")]
    for number in range(5):
        y = _HEIGHT - _EDGE - number / 4 * (_HEIGHT - 2 * _EDGE)
        parts.append(_text(_EDGE - 8, y + 4, f"{top * number / 4:,.0f}", "end"))
        parts.append(f'<path d="M{_EDGE} {y:.0f}H{_WIDTH - _EDGE}" stroke="#ddd"/>')
        x = 10 ** (low + number / 4 * (high - low))
        parts.append(
            _text(_EDGE + number / 4 * (_WIDTH - 2 * _EDGE), _HEIGHT - _EDGE + 18, f"{x:.3g}")
        )
    for number, (system, found) in enumerate(points.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        dots = [place(p) for p in sorted(found, key=lambda p: p[2])]
        way = "L".join(f"{x:.1f} {y:.1f}" for x, y in dots)
        parts.append(f'<path d="M{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in dots]
        parts.append(
            f'<text x="{_EDGE + 150 * number}" y="{_HEIGHT - 20}" fill="{colour}">{system}</text>'
        )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        f' font-family="sans-serif" font-size="13">\n{body}\n</svg>\n'
    )


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{text}</text>'


if __name__ == "__main__":
    source, target = (Path(x) for x in sys.argv[1:3])
    target.write_text(draw([json.loads(x) for x in source.read_text().splitlines()]), "utf-8")
