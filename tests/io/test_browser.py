"""The annotated MP4 plays in a real browser: Chromium without a screen, which loads it from a loopback server."""

from __future__ import annotations

import http.server
import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from tests.io.clips import numbered
from visionkit.io import VideoWriter

SIZE_HW = (432, 768)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
]
PAGE = b"""<!doctype html><meta charset="utf-8"><title>plays?</title><video id="v" src="/clip" muted></video><script>
const v = document.getElementById('v');
const tell = (what) => fetch('/told', {method: 'POST', body: JSON.stringify(Object.assign(what, {
  width: v.videoWidth, height: v.videoHeight, time: v.currentTime, duration: v.duration,
  frames: v.getVideoPlaybackQuality().totalVideoFrames, sound: v.webkitAudioDecodedByteCount,
  error: v.error && v.error.message}))});
let said = false;
v.onerror = () => tell({});
v.ontimeupdate = () => {
  if (said || v.currentTime < 0.5) return;
  said = true;
  v.pause();
  const c = document.createElement('canvas');
  c.width = v.videoWidth; c.height = v.videoHeight;
  const g = c.getContext('2d');
  g.drawImage(v, 0, 0);
  const at = (x, y) => Array.from(g.getImageData(x, y, 1, 1).data).slice(0, 3);
  tell({red: at(50, 300), green: at(150, 300), blue: at(250, 300), grey: at(350, 300)});
};
v.play().catch((e) => tell({refused: String(e)}));
</script>"""


def find_chromium() -> str | None:
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if path := shutil.which(name):
            return path
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


@pytest.fixture(scope="module")
def chromium() -> str:
    path = find_chromium()
    if path is None:
        pytest.skip("NOT PROVED that the video plays in a browser: no Chromium (Debian: apt-get install chromium)")
    return path


def played(chromium: str, clip: Path, profile: Path) -> dict[str, Any]:
    """What the page told after half a second of `clip`, or why it did not play."""
    told: queue.Queue[dict[str, Any]] = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = {"/": PAGE, "/clip": clip.read_bytes()}.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "video/mp4" if self.path == "/clip" else "text/html")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with served(Handler) as port:
        browser = subprocess.Popen(
            [chromium, *FLAGS, f"--user-data-dir={profile}", f"http://127.0.0.1:{port}/"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return told.get(timeout=90)
        except queue.Empty:
            pytest.fail("the browser said nothing for 90 s")
        finally:
            browser.terminate()
            browser.wait(30)


class served:  # noqa: N801
    """A loopback server for the `with` block, on a free port."""

    def __init__(self, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # the browser is gone first
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self) -> int:
        self.thread.start()
        return int(self.server.server_address[1])

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def frames(count: int) -> Iterator[np.ndarray]:
    for i in range(count):
        image = numbered(i, SIZE_HW)
        for j, colour in enumerate([(0, 0, 255), (0, 255, 0), (255, 0, 0), (128, 128, 128)]):
            image[250:350, 100 * j : 100 * j + 100] = colour
        yield image


def test_vfr_video_plays_with_its_colours(chromium, tmp_path):
    path = tmp_path / "annotated.mp4"
    with VideoWriter(path, size_hw=SIZE_HW) as writer:
        for i, image in enumerate(frames(50)):
            writer.write(image, 1000.0 + 40.0 * i + (i % 3) * 7.3, 40.0)
    got = played(chromium, path, tmp_path / "profile")
    assert got["error"] is None
    assert (got["width"], got["height"]) == (768, 432)
    assert got["time"] >= 0.5
    assert got["frames"] >= 5
    assert got["duration"] == pytest.approx(2.0, abs=0.05)
    # As in test_write_video: 3 is what rounding to 8-bit YUV can do.
    for name, colour in {
        "red": (255, 0, 0),
        "green": (0, 255, 0),
        "blue": (0, 0, 255),
        "grey": (128, 128, 128),
    }.items():
        np.testing.assert_allclose(got[name], colour, rtol=0, atol=3, err_msg=name)


def test_real_clip_with_sound_plays(chromium, shared, tmp_path):
    source = shared / "data/video/car-detection.mp4"
    path = tmp_path / "annotated.mp4"
    with av.open(str(source)) as container, VideoWriter(path, size_hw=SIZE_HW, audio_from=source) as writer:
        for frame in container.decode(video=0):
            if frame.pts * frame.time_base >= 5:
                break
            image = np.ascontiguousarray(frame.to_ndarray(format="bgr24"))
            cv2.rectangle(image, (200, 150), (420, 330), (0, 0, 255), 2)
            writer.write(image, float(frame.pts * frame.time_base * 1000), 80.0)
    got = played(chromium, path, tmp_path / "profile")
    assert got["error"] is None
    assert (got["width"], got["height"]) == (768, 432)
    assert got["time"] >= 0.5
    assert got["frames"] >= 3
    assert got["sound"] > 0
    assert got["duration"] == pytest.approx(5.04, abs=0.05)


def test_the_page_notices_a_video_that_does_not_play(chromium, tmp_path):
    """The control: MPEG-4 part 2, which OpenCV calls mp4v and no browser plays."""
    path = tmp_path / "annotated.mp4"
    with VideoWriter(path, size_hw=SIZE_HW, codec="mpeg4") as writer:
        for i, image in enumerate(frames(50)):
            writer.write(image, 40.0 * i, 40.0)
    got = played(chromium, path, tmp_path / "profile")
    assert got["error"] or got.get("refused")
