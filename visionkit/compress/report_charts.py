"""Pictures of a verdict's numbers as inline SVG that follow the page's light or dark colours."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from visionkit.compress.verdict import Interval

__all__ = ["STYLE", "bars", "forest"]

COLOURS = {"ship": "var(--good)", "unsure": "var(--doubt)", "dont": "var(--bad)"}
WIDTH, LEFT, RIGHT, ROW, TOP = 460, 110, 52, 28, 28
STYLE = """
:root{color-scheme:light dark;--ink:#222;--paper:#fff;--dim:#6a6a6a;--line:#e2e2e2;--soft:#f4f4f4;--blue:#1769aa;
--good:#1d7a46;--good-soft:#e3f4ea;--bad:#b3261e;--bad-soft:#fbe6e4;--doubt:#8a5a00;--doubt-soft:#fdf0d5}
@media (prefers-color-scheme:dark){:root{
--ink:#e8e8e8;--paper:#16191d;--dim:#9aa0a6;--line:#33383f;--soft:#22262c;--blue:#6cb4f0;
--good:#6fd39a;--good-soft:#173526;--bad:#ff8f86;--bad-soft:#431d1a;--doubt:#ffc766;--doubt-soft:#3b2d10}}
body{background:var(--paper);color:var(--ink)}code,pre,figure img{background:var(--soft)}.dim{color:var(--dim)}
svg text{fill:var(--dim)}svg .grid{stroke:var(--line)}svg .name{fill:var(--ink)}
.verdict{font-size:1.25em;line-height:1.4;padding:.7em 1em;border-left:.35em solid;border-radius:.3em;
display:flex;gap:.6em}
.verdict.ship{background:var(--good-soft);border-color:var(--good)}.verdict.ship b{color:var(--good)}
.verdict.dont{background:var(--bad-soft);border-color:var(--bad)}.verdict.dont b{color:var(--bad)}
.verdict.unsure{background:var(--doubt-soft);border-color:var(--doubt)}.verdict.unsure b{color:var(--doubt)}
.chip{padding:.05em .5em;border-radius:1em;white-space:nowrap;font-size:.9em;font-weight:400}
.chip.ship{background:var(--good-soft);color:var(--good)}.chip.dont{background:var(--bad-soft);color:var(--bad)}
.chip.unsure{background:var(--doubt-soft);color:var(--doubt)}
.card{border:1px solid var(--line);border-radius:.5em;padding:.2em 1em .8em;margin:1em 0}.card h2{margin:.6em 0}
.card ul{margin:.4em 0;padding-left:1.2em}.card dd{margin:0;font-variant-numeric:tabular-nums}
.card dl{display:grid;grid-template-columns:minmax(8em,auto) 1fr;gap:.15em 1em;margin:.6em 0 0}
.card dt{color:var(--dim)}
tr+tr td{border-top:1px solid var(--line)}.overview td{white-space:nowrap}
td.n,th.n{padding-right:.2em;padding-left:.8em}
.worst figure{width:210px}.worst figure img{width:100%;height:auto;max-height:320px}.worst .large{width:320px}
@media (max-width:600px){body{margin:1em auto}.worst figure{width:calc(50% - .5em)}.worst .large{width:100%}
svg text{font-size:14px}
.card dl{grid-template-columns:1fr}.card dd{margin-bottom:.4em}}
"""


def forest(title: str, rows: Mapping[str, Interval], bound: float, verdicts: Mapping[str, str]) -> str:
    """An interval a row in the colour of its verdict, with a dashed line at the bound."""
    low = min(0.0, *(one.low for one in rows.values()))
    high = max(bound, *(one.high for one in rows.values()))
    pad = 0.06 * (high - low or 1.0)
    low, high = low - pad, high + pad
    bottom = TOP + ROW * len(rows)
    parts = [_start(title, bottom + 22)]

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - 12) * (value - low) / (high - low)

    for value, kind in ((0.0, "grid"), (bound, "mark")):
        parts.append(f'<line class="{kind}" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP - 6}" y2="{bottom}"/>')
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>')
    for place, (name, one) in enumerate(rows.items()):
        y = TOP + ROW * place + ROW / 2
        colour = COLOURS[verdicts[name]]
        parts.append(_name(name, y))
        parts.append(
            f'<line x1="{x(one.low):.1f}" x2="{x(one.high):.1f}" y1="{y}" y2="{y}" style="stroke:{colour}" '
            'stroke-width="3" stroke-linecap="round"/>'
            f'<circle cx="{x(one.value):.1f}" cy="{y}" r="5" style="fill:{colour}"/>'
        )
    return "".join([*parts, "</svg>"])


def bars(title: str, rows: Mapping[str, float], *, mark: float | None = None) -> str:
    """A bar a row with its number behind, and a dashed line at `mark` where it is within the picture."""
    top = max(*rows.values(), 0.0) or 1.0
    top = max(top, mark) if mark is not None and mark <= 1.5 * top else top
    bottom = TOP + ROW * len(rows)
    parts = [_start(title, bottom + 6)]
    room = WIDTH - LEFT - RIGHT
    for place, (name, value) in enumerate(rows.items()):
        y = TOP + ROW * place + ROW / 2
        length = room * value / top
        parts.append(_name(name, y))
        parts.append(
            f'<rect x="{LEFT}" y="{y - 8}" width="{length:.1f}" height="16" rx="2" style="fill:var(--blue)"/>'
            f'<text class="name" x="{LEFT + length + 6:.1f}" y="{y + 4}">{value:.3g}</text>'
        )
    if mark is not None and mark <= top:
        x = LEFT + room * mark / top
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}"/>')
    return "".join([*parts, "</svg>"])


def _start(title: str, height: float) -> str:
    told = escape(title, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{told}"><text x="{LEFT}" y="14">{told}</text>'


def _name(name: str, y: float) -> str:
    cut = name if len(name) <= 15 else name[:14] + "…"
    return f'<text class="name" x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(cut)}</text>'
