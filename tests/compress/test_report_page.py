"""The verdict's page: what it says, that nothing in it runs or fetches, and how a real browser shows it."""

from __future__ import annotations

import http.server
import json
import queue
import re
import subprocess
from dataclasses import replace
from html import unescape

import pytest

from tests.compress.made_report import made_report
from tests.io.test_browser import FLAGS, find_chromium, served
from visionkit.compress.report import render_quantize_report, report_table
from visionkit.compress.verdict import decide

# The report runs no script itself, so a page around it looks into it.
AROUND = b"""<!doctype html><meta charset="utf-8"><style>iframe{width:390px;height:700px;border:0}</style>
<iframe id="f" src="/report"></iframe><script>
document.getElementById('f').onload = () => {
  const d = document.getElementById('f').contentDocument, style = (e) => d.defaultView.getComputedStyle(e);
  const images = Array.from(d.images);
  fetch('/told', {method: 'POST', body: JSON.stringify({
    width: d.documentElement.scrollWidth, text: d.body.innerText, title: d.title, scripts: d.scripts.length,
    images: images.length, drawn: images.filter((i) => i.complete && i.naturalWidth > 1).length,
    charts: Array.from(d.querySelectorAll('svg')).map((s) => s.getBoundingClientRect().width),
    verdict: style(d.querySelector('.verdict')).backgroundColor, ink: style(d.body).color,
    paper: style(d.body).backgroundColor, fonts: d.fonts.size})});
};
</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    path = find_chromium()
    if path is None:
        pytest.skip("NOT PROVED that the report shows in a browser: no Chromium (Debian: apt-get install chromium)")
    return path


def looked_at(chromium, html, profile, *flags):
    """What the browser made of the page in a frame 390 pixels wide, and the paths that it asked the server for."""
    told, asked = queue.Queue(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = {"/": AROUND, "/report": html.encode()}.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def do_POST(self):
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with served(Handler) as port:
        browser = subprocess.Popen(
            [chromium, *FLAGS, *flags, f"--user-data-dir={profile}", f"http://127.0.0.1:{port}/"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return told.get(timeout=90), [path for path in asked if path != "/favicon.ico"]
        except queue.Empty:
            pytest.fail("the browser said nothing for 90 s")
        finally:
            browser.terminate()
            browser.wait(30)


def brightness(colour):
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 3


def test_a_browser_shows_it_on_a_phone_in_light_and_dark_and_fetches_nothing(chromium, tmp_path):
    report = made_report()
    html = render_quantize_report(report)
    light, asked = looked_at(chromium, html, tmp_path / "light", "--blink-settings=preferredColorScheme=1")
    assert asked == ["/", "/report"]
    assert light["title"] == report.title  # the markup in it is text
    assert light["scripts"] == 0
    assert light["fonts"] == 0
    assert report.decision.sentence in light["text"]
    assert light["images"] == light["drawn"] == 7
    assert light["width"] <= 390  # wide tables scroll inside of themselves
    assert all(0 < width <= 390 for width in light["charts"])
    assert brightness(light["paper"]) > 240 > 60 > brightness(light["ink"])
    dark, _ = looked_at(chromium, html, tmp_path / "dark", "--blink-settings=preferredColorScheme=0")
    assert brightness(dark["paper"]) < 40 < 200 < brightness(dark["ink"])
    assert brightness(dark["verdict"]) < 80 < 200 < brightness(light["verdict"])


def test_nothing_runs_and_nothing_is_fetched():
    html = render_quantize_report(made_report())
    assert "<script" not in html
    assert "default-src 'none'" in html
    addresses = re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^">)]*)', html)
    assert addresses
    assert all(address.startswith("data:image/") for address in addresses)
    assert "<b>owl</b>" not in html


def text_of(html):
    return unescape(re.sub(r"<[^>]+>", " ", html))


def test_it_says_what_was_found():
    report = made_report()
    shown = text_of(render_quantize_report(report))
    assert report.decision.sentence in shown
    assert "✓ ship this" in shown
    assert "It loses 4.2 points of top-1 (95 % interval of the loss 2.6 to 6.1), more than the 1 allowed." in shown
    assert "'cat' falls from 95% to 35%" in shown
    assert "about 6270 more would" in shown  # 480 images: ((2.1 - 0.6) / (1 - 0.6))^2 = 14.06 times as many
    assert "It could not be built: the data has no part to learn from; give --split." in shown
    assert "2 operations stay in float: SOFTMAX, RESIZE_BILINEAR" in shown
    assert "photos/7.jpg is damaged and not counted" in shown
    assert "5 more are in the JSON" in shown  # layers


def test_the_json_holds_the_same_and_only_numbers_that_json_has():
    report = made_report()
    table = json.loads(json.dumps(report_table(report), allow_nan=False))
    assert table["ship"] == report.decision.ship == "int8"
    assert table["sentence"] == report.decision.sentence
    assert [one["verdict"] for one in table["variants"]] == ["ship", "ship", "dont", "unsure", "dont"]
    assert table["variants"][4]["failed"].startswith("the data has no part")
    assert table["variants"][2]["reasons"][0]["slug"] == "drop"
    assert table["reference"]["drop"] is None
    assert len(table["layers"]) == 30
    assert table["disagreements"]["int8"][0] == {
        "name": "cat/0.jpg",
        "float": "cat 98 %",
        "int8": "dog 61 %",
        "truth": "cat",
    }


def test_no_variant_at_all_is_a_page_too():
    report = made_report()
    empty = replace(
        report, variants=[], decision=decide(report.reference, [], report.bounds), pictures={}, layers=(), rescue=()
    )
    assert "Do not ship: no variant was built." in text_of(render_quantize_report(empty))
