"""What the trainings of `stn_table` found, beside the paper's numbers: as data, as Markdown and as a page."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.train.digit_distortions import DISTORTIONS, distort_digits
from visionkit.train.page import data_uri, page, settings, table, text

__all__ = ["PAPER", "Cells", "collect", "markdown", "orderings", "render", "sentences", "summary"]

SOURCE = "Jaderberg et al., Spatial transformer networks, NIPS 2015, Table 1"
# Quoted from there: errors in percent on distorted MNIST.
PAPER: Mapping[tuple[str, str], Mapping[str, float]] = {
    kind: dict(zip(DISTORTIONS, errors, strict=True))
    for kind, errors in {
        ("fcn", "none"): (2.1, 5.2, 3.1, 3.2),
        ("cnn", "none"): (1.2, 0.8, 1.5, 1.4),
        ("st-fcn", "affine"): (1.2, 0.8, 1.5, 2.7),
        ("st-fcn", "projective"): (1.3, 0.9, 1.4, 2.6),
        ("st-fcn", "tps"): (1.1, 0.8, 1.4, 2.4),
        ("st-cnn", "affine"): (0.7, 0.5, 0.8, 1.2),
        ("st-cnn", "projective"): (0.8, 0.6, 0.8, 1.3),
        ("st-cnn", "tps"): (0.7, 0.5, 0.8, 1.1),
    }.items()
}
Kind = tuple[str, str]  # row, transform
Cells = Mapping[tuple[Kind, str], Sequence[float]]  # errors in percent, one a seed, by kind and distortion
SAMPLES = 12


@dataclass(frozen=True, slots=True)
class Ordering:
    """One pair of the paper's table, and what was found of it.

    `holds`: the mean error is lower; `clear`: with two seeds and more, every seed's is, than every seed's of the other.
    """

    claim: str
    better: Kind
    worse: Kind
    distortion: str
    gain: float
    holds: bool
    clear: bool


def collect(results: Sequence[Mapping[str, Any]]) -> Cells:
    """The errors of `stn_table.read_cells`, by kind and distortion, in the paper's order."""
    found: dict[tuple[Kind, str], dict[int, float]] = defaultdict(dict)
    for result in results:
        found[(result["row"], result["transform"]), result["distortion"]][result["seed"]] = result["error"]
    keys = [key for key in itertools.product(PAPER, DISTORTIONS) if key in found]
    return {key: [found[key][seed] for seed in sorted(found[key])] for key in keys}


def orderings(cells: Cells) -> list[Ordering]:
    """Every strict order that the paper's table has, of those `_claims` names, where both cells were trained."""
    found = []
    for claim, better, worse in _claims():
        for distortion in DISTORTIONS:
            if PAPER[better][distortion] >= PAPER[worse][distortion]:
                continue
            if (better, distortion) not in cells or (worse, distortion) not in cells:
                continue
            one, other = cells[better, distortion], cells[worse, distortion]
            gain = float(np.mean(other) - np.mean(one))
            clear = max(one) < min(other) and min(len(one), len(other)) > 1
            found.append(Ordering(claim, better, worse, distortion, gain, gain > 0, clear))
    return found


def _claims() -> list[tuple[str, Kind, Kind]]:
    transforms = [kind[1] for kind in PAPER if kind[0] == "st-fcn"]
    return [
        ("CNN below FCN", ("cnn", "none"), ("fcn", "none")),
        *(("ST-FCN below FCN", ("st-fcn", how), ("fcn", "none")) for how in transforms),
        *(("ST-CNN below CNN", ("st-cnn", how), ("cnn", "none")) for how in transforms),
        *(("ST-CNN below ST-FCN", ("st-cnn", how), ("st-fcn", how)) for how in transforms),
        *(("TPS below affine", (row, "tps"), (row, "affine")) for row in ("st-fcn", "st-cnn")),
    ]


def sentences(found: Sequence[Ordering]) -> list[str]:
    """One sentence for each claim: in how many cells it holds, in how many beyond the seeds' spread, where not."""
    told = []
    for claim, group in itertools.groupby(found, key=lambda each: each.claim):
        every = list(group)
        holds, clear = sum(each.holds for each in every), sum(each.clear for each in every)
        missing = [f"{_place(each)} ({-each.gain:.2f} points more)" for each in every if not each.holds]
        rest = f"; not in {', '.join(missing)}" if missing else ""
        told.append(
            f"{claim}: {holds} of the {len(every)} pairs that the paper has in this order, {clear} with every seed "
            f"below every seed of the other{rest}."
        )
    return told


def _place(ordering: Ordering) -> str:
    how = ordering.better[1]
    if ordering.claim == "TPS below affine":
        return f"{ordering.better[0].upper()} {ordering.distortion}"
    return ordering.distortion if how == "none" else f"{ordering.distortion} {how}"


def name(kind: Kind) -> str:
    """`ST-FCN affine`."""
    row, transform = kind
    return row.upper() if transform == "none" else f"{row.upper()} {'TPS' if transform == 'tps' else transform}"


def _cell(errors: Sequence[float], paper: float) -> str:
    """Mean and standard deviation over the seeds, and the paper's number in brackets."""
    spread = f" ± {np.std(errors, ddof=1):.2f}" if len(errors) > 1 else ""
    return f"{np.mean(errors):.2f}{spread} ({paper})"


def rows(cells: Cells) -> list[list[str]]:
    """The table's rows of words: a network, and a cell for each distortion; a dash for what was not trained."""
    kinds = [kind for kind in PAPER if any(key[0] == kind for key in cells)]
    return [
        [
            name(kind),
            *(
                _cell(cells[kind, d], PAPER[kind][d]) if (kind, d) in cells else f"– ({PAPER[kind][d]})"
                for d in DISTORTIONS
            ),
        ]
        for kind in kinds
    ]


def markdown(cells: Cells, facts: Mapping[str, object]) -> str:
    """The table, the orderings, and what was trained."""
    seeds = sorted({len(errors) for errors in cells.values()})
    lines = [
        f"| error in percent | {' | '.join(DISTORTIONS)} |",
        "|---" * (len(DISTORTIONS) + 1) + "|",
        *(f"| {' | '.join(row)} |" for row in rows(cells)),
        "",
        f"Mean ± standard deviation over {' or '.join(map(str, seeds))} seeds; in brackets {SOURCE}.",
        "",
        *(f"- {sentence}" for sentence in sentences(orderings(cells))),
        "",
        *(f"- {key}: {value}" for key, value in facts.items()),
    ]
    return "\n".join(lines) + "\n"


def summary(results: Sequence[Mapping[str, Any]], facts: Mapping[str, object]) -> dict[str, Any]:
    """All of it as data for `table.json`."""
    cells = collect(results)
    found = orderings(cells)
    return {
        "source": SOURCE,
        "facts": dict(facts),
        "table": [
            {
                "row": kind[0],
                "transform": kind[1],
                "distortion": distortion,
                "mean": round(float(np.mean(errors)), 4),
                "spread": round(float(np.std(errors, ddof=1)), 4) if len(errors) > 1 else None,
                "errors": list(errors),
                "paper": PAPER[kind][distortion],
            }
            for (kind, distortion), errors in cells.items()
        ],
        "orderings": [
            {
                "claim": each.claim,
                "better": name(each.better),
                "worse": name(each.worse),
                "distortion": each.distortion,
                "gain": round(each.gain, 4),
                "holds": each.holds,
                "clear": each.clear,
            }
            for each in found
        ],
        "sentences": sentences(found),
        "trainings": list(results),
    }


def render(cells: Cells, facts: Mapping[str, object], command: str, digits: npt.NDArray[np.uint8]) -> str:
    """The page: the table, what it says, distorted `digits` uint8 (N, H, W) and the settings."""
    body = [[text(cell) for cell in row] for row in rows(cells)]
    told = "".join(f"<li>{text(sentence)}</li>" for sentence in sentences(orderings(cells)))
    shown = "".join(
        f'<figure><img alt="" style="width:auto" src="{data_uri(_strip(digits, kind), 1200, lossless=True)}">'
        f"<figcaption>{kind}</figcaption></figure>"
        for kind in DISTORTIONS
    )
    sections = [
        f"<p>Wrong answers in percent, mean and standard deviation over the seeds; in brackets: {SOURCE}.</p>",
        table(["network", *DISTORTIONS], body, numbers=len(DISTORTIONS)),
        f"<h2>The paper's order</h2><ul>{told}</ul>",
        f'<h2>The distortions</h2><div class="triples">{shown}</div>',
        f"<h2>Settings</h2>{settings(command, facts, [])}",
    ]
    return page("Spatial transformer networks, Table 1", sections)


def _strip(digits: npt.NDArray[np.uint8], kind: str) -> npt.NDArray[np.uint8]:
    """Some digits side by side, distorted."""
    pictures = distort_digits(digits[:SAMPLES], kind, np.random.default_rng(0))[..., 0]
    strip = np.rint(np.hstack(list(pictures)) * 255).astype(np.uint8)
    return np.repeat(strip[..., None], 3, axis=2)
