"""A page that needs nothing else, runs nothing and fetches nothing: what the reports of trainings share."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.io import safe_text

__all__ = ["data_uri", "page", "percent", "settings", "table", "text"]

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1000px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}
.charts{display:flex;flex-wrap:wrap;gap:1em}.charts svg{width:460px;max-width:100%}.wide{overflow-x:auto}
svg text{font:12px system-ui,sans-serif;fill:#555}svg .grid{stroke:#e5e5e5}svg .mark{stroke:#999;stroke-dasharray:4 3}
table{border-collapse:collapse}td,th{padding:.15em .8em .15em 0;text-align:left;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.mistakes{display:flex;flex-wrap:wrap;gap:1em}figure{margin:0;width:150px;font-size:13px;overflow-wrap:anywhere}
figure img{display:block;width:112px;height:112px;object-fit:contain;background:#f3f3f3}
.triples figure{width:100%;margin:.5em 0}.triples img{display:inline-block;width:32%;height:auto;margin-right:1%}
.key span{display:inline-block;margin-right:1em;white-space:nowrap}
.key i{display:inline-block;width:1em;height:1em;margin-right:.3em;vertical-align:-.15em;border:1px solid #999}
code,pre{background:#f5f5f5;padding:.1em .3em;overflow-wrap:anywhere;white-space:pre-wrap}.big{font-size:1.3em}
"""


def page(title: str, sections: Sequence[str], *, style: str = "") -> str:
    """A whole page of sections that are HTML already; the title is not, and is escaped. `style`: more CSS."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}{style}</style></head><body>\n"
        + "\n".join([f"<h1>{text(title)}</h1>", *sections])
        + "\n</body></html>\n"
    )


def text(value: object, limit: int = 500) -> str:
    """A value as text of the page: control characters shown, markup escaped."""
    return escape(safe_text(value, limit), quote=True)


def percent(value: float) -> str:
    """A fraction in percent, a dash for nan."""
    return "–" if np.isnan(value) else f"{value:.1%}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> str:
    """A table of escaped cells; its last `numbers` columns hold numbers."""
    kinds = [""] * (len(heads) - numbers) + [' class="n"'] * numbers
    head = "".join(f"<th{kind}>{cell}</th>" for kind, cell in zip(kinds, heads, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def data_uri(image: npt.NDArray[np.uint8], longest: int, *, lossless: bool = False) -> str:
    """An image uint8 (H, W, 3) BGR as an address that holds it, its longer side at most `longest` pixels."""
    scale = longest / max(image.shape[:2])
    if scale < 1:
        size_wh = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
        how = cv2.INTER_NEAREST_EXACT if lossless else cv2.INTER_AREA
        image = np.asarray(cv2.resize(image, size_wh, interpolation=how), np.uint8)
    kind, quality = (".png", []) if lossless else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 85])
    data = cv2.imencode(kind, image, quality)[1]
    mime = "image/png" if lossless else "image/jpeg"
    return f"data:{mime};base64," + base64.b64encode(data.tobytes()).decode("ascii")


def settings(command: str, values: Mapping[str, object], notes: Sequence[str]) -> str:
    """The command, what was chosen, and what was found wrong with the data."""
    rows = [[text(name), text(value)] for name, value in values.items()]
    listed = "".join(f"<li>{text(note)}</li>" for note in notes)
    found = f"<h2>Noticed about the data</h2><ul>{listed}</ul>" if notes else ""
    return f"<pre>{text(command, 4000)}</pre>{table(['setting', 'value'], rows, numbers=0)}{found}"
