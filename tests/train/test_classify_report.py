"""The report and the model folder of a training: hostile names stay names, and nothing is fetched or run."""

from __future__ import annotations

import base64
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from visionkit.train.charts import curves
from visionkit.train.model_folder import toml_text
from visionkit.train.report import Mistake, TrainingReport, render_report
from visionkit.weights.card_file import parse_card

HOSTILE = [
    "<script>alert(1)</script>",
    '"onerror="alert(1)',
    "</svg></style><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "a\nb\x1b[31m\u202e",
    "&lt;already&gt;",
    "'><svg/onload=alert(1)>",
    "]]><!--",
]


class Page(HTMLParser):
    """Every tag with its attributes, and the text between."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.wrong.append(data)

    def unknown_decl(self, data: str) -> None:
        self.wrong.append(data)


def report_of(labels: list[str], confusion: np.ndarray) -> str:
    rng = np.random.default_rng(0)
    row = {"loss": 1.0, "accuracy": 0.5, "val_loss": 0.9, "val_accuracy": 0.6, "learning_rate": 1e-3}
    image = rng.integers(0, 256, (40, 70, 3)).astype(np.uint8)
    return render_report(
        TrainingReport(
            title=labels[0],
            labels=labels,
            history=[row, {**row, "val_loss": 0.5}],
            best=2,
            confusion=confusion,
            precision=np.full(len(labels), np.nan),
            recall=np.full(len(labels), 0.5),
            mistakes=[Mistake(name, name, labels[-1], 0.9, image) for name in labels[:8]],
            settings={name: name for name in labels[:8]},
            command=f"visionkit train classify --data {labels[0]}",
            notes=labels[:8],
        )
    )


@pytest.mark.parametrize("many", [False, True])
def test_hostile_names_appear_only_escaped(many: bool) -> None:
    labels = HOSTILE + [f"plain {k}" for k in range(50)] * many
    confusion = np.ones((len(labels), len(labels)), np.int64)
    html = report_of(labels, confusion)
    page = Page()
    page.feed(html)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "embed", "link", "form", "a", "base", "foreignobject"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert re.match(r"data:image/jpeg;base64,", attributes.get("src") or "data:image/jpeg;base64,")
        assert not {"href", "xlink:href", "action", "srcset"} & attributes.keys()
    assert page.wrong == []
    assert not re.search(r"https?://|url\(|@import", html)
    text = "".join(page.text)
    for name in (HOSTILE[0], HOSTILE[1], HOSTILE[5]):  # shown as what they are
        assert name in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", html)


def test_a_policy_forbids_what_escaping_should_have_kept_out() -> None:
    page = Page()
    page.feed(report_of(["a", "b"], np.eye(2, dtype=np.int64)))
    policies = [dict(a)["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert len(policies) == 1
    assert str(policies[0]).startswith("default-src 'none'")
    assert "script-src" not in str(policies[0])


def test_the_report_tells_the_numbers_and_shows_the_pictures() -> None:
    html = report_of(["cat", "dog"], np.array([[30, 2], [5, 13]]))
    assert "86.0% of 50 validation images right (7 wrong)" in html
    for number in ("30", "2", "5", "13"):
        assert f">{number}</text>" in html
    data = re.search(r"data:image/jpeg;base64,([^\"]+)", html)
    assert data is not None
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data[1]), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (40, 70, 3)


def test_many_classes_list_the_pairs_instead_of_a_matrix() -> None:
    confusion = np.eye(60, dtype=np.int64) * 9
    confusion[7, 3] = 4
    html = report_of([f"c{k}" for k in range(60)], confusion)
    assert '<td>c7</td><td>c3</td><td class="n">4</td>' in html
    assert 'class="matrix"' not in html


def test_a_curve_goes_through_its_points() -> None:
    svg = curves("x", {"a": [0.0, 1.0, 0.5]}, top=1.0)
    points = re.search(r'points="([^"]+)"', svg)
    assert points is not None
    (x1, y1), (x2, y2), (x3, y3) = (tuple(map(float, point.split(","))) for point in points[1].split())
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.11)
    assert y3 == pytest.approx((y1 + y2) / 2, abs=0.11)
    assert y2 < y1  # upwards is smaller


def test_a_card_of_hostile_labels_reads_back_the_same(tmp_path: Path) -> None:
    labels = [*HOSTILE, "back\\slash", "\x7f", "café 猫 🐈"]
    table = {
        "summary": 'quo"ted',
        "metrics": [{"name": "x", "data": "y", "value": 0.5}],
        "task": "classify",
        "network": "resnet",
        "licence": "NONE",
        "labels": labels,
        "args": {"depths": [1, 1], "width": 8, "stem": "small"},
        "input": {"size_hw": [24, 32], "resize": "letterbox", "preset": "torch"},
    }
    read = tomllib.loads(toml_text(table))
    assert read == table
    card = parse_card(read, tmp_path)
    assert card.labels == tuple(labels)
    assert card.args == table["args"]
