"""`visionkit models`: what the model cards say, and their weights brought to this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from visionkit.cli.download import DownloadBar, announce
from visionkit.cli.text import emit, emit_json, examples, file_size, table
from visionkit.weights.card import Card, Metric, Weights
from visionkit.weights.fetch import fetch, offer
from visionkit.weights.importing import import_weights
from visionkit.weights.loading import build_network, load_weights
from visionkit.weights.registry import list_cards, load_card

__all__ = ["command"]

_HERE = {True: "yes", False: "no"}


@click.group(epilog=examples("visionkit models list", "visionkit models fetch mobilenet_v3_large"))
def command() -> None:
    """List the model cards, show one, fetch or import its weights."""


@command.command("list", epilog=examples("visionkit models list", "visionkit models list --json"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """One line for each card: task, size of the weights, first metric, licence, whether the weights are here."""
    cards = list_cards()
    if as_json:
        emit_json([_as_json(card) for card in cards])
        return
    rows = [["NAME", "TASK", "SIZE", "METRIC", "LICENCE", "HERE"]]
    for card in cards:
        metric = _metric(card.metrics[0]) if card.metrics else "-"
        licence = card.licence + (" + terms" if card.licence_note else "")
        rows.append([card.name, card.task, file_size(_size(card)), metric, licence, _HERE[_here(card)]])
    for line in table(rows):
        emit(line)


@command.command(epilog=examples("visionkit models list"))
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Everything the card NAME says."""
    card = load_card(name)
    if as_json:
        emit_json(_as_json(card))
        return
    for line in _lines(card):
        emit(line)


@command.command("fetch", epilog=examples("visionkit models fetch resnet50", "visionkit models fetch resnet18 vgg16"))
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
def fetch_(names: tuple[str, ...]) -> None:
    """Download the weights of each card NAME into the cache, checked against the card's sha256.

    The cache is $VISIONKIT_CACHE, else $XDG_CACHE_HOME/visionkit, else ~/.cache/visionkit. An interrupted download is
    continued.
    """
    for card in [load_card(name) for name in names]:
        entry = next((item for item in card.weights if item.url), None)
        if entry is None and _here(card):
            emit(f"{card.name}: came with VisionKit, nothing to fetch.")
            continue
        if entry is not None and card.find(entry) is None:
            announce(offer(card, entry))
        with DownloadBar(card.name) as bar:
            path = fetch(card, entry, bar)
        emit(str(path))


@command.command("import", epilog=examples("visionkit models import resnet50 Downloads/resnet50-11ad3fa6.pth"))
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--allow-other-weights",
    is_flag=True,
    help="Also take weights of the same network that are not the card's, such as your own; they are kept apart.",
)
def import_(name: str, file: Path, allow_other_weights: bool) -> None:
    """Take the weights of the card NAME from FILE, fetched elsewhere.

    FILE is read without running anything in it, checked against the card's sha256, loaded into the card's network, and
    copied into the cache. Prints where it lies; weights that are not the card's are used by giving that path as
    --weights.
    """
    emit(str(import_weights(load_card(name), file, allow_other=allow_other_weights, attempt=_try_weights)))


def _try_weights(card: Card, path: Path) -> None:
    """Load the weights into the card's network, where Keras is installed."""
    import importlib.util

    if importlib.util.find_spec("keras") is not None:
        from visionkit.runtime.quiet import import_keras

        import_keras()
        load_weights(build_network(card), card, path)


def _lines(card: Card) -> list[str]:
    rows = [("name", card.name), ("summary", card.summary), ("task", card.task), ("network", _call(card))]
    rows += [(f"input {key}", str(value)) for key, value in card.input.items()]
    rows += [(f"option {key}", str(value)) for key, value in card.options.items()]
    rows += [("labels", f"{len(card.labels)}: {', '.join(card.labels[:8])}" if card.labels else "")]
    rows += [(f"head {name}", f"{len(names)}: {', '.join(names[:8])}") for name, names in card.heads.items()]
    rows += [("licence", card.licence), ("of the licence", card.licence_note), ("paper", card.paper)]
    rows += [("metric", _metric(metric, full=True)) for metric in card.metrics]
    for entry in card.weights:
        where = str(card.find(entry) or entry.url or f"{entry.file} (not here)")
        rows += [("weights", f"{entry.format}, {file_size(_entry_size(card, entry))}, sha256 {entry.sha256}, {where}")]
    if card.trained is not None:
        made = card.trained
        rows += [("trained by", made.command), ("trained on", f"{made.data}; seed {made.seed}; {made.hours:g} h")]
    width = max(len(key) for key, _ in rows)
    return [f"{key.ljust(width)}  {value}" for key, value in rows if value]


def _call(card: Card) -> str:
    return f"{card.network}({', '.join(f'{key}={value!r}' for key, value in card.args.items())})"


def _metric(metric: Metric, full: bool = False) -> str:
    if metric.value is None:
        text = f"{metric.name} {metric.original:g} ({metric.data})"
        return f"{text}; reported by {metric.source}" if full else f"{text}, reported"
    text = f"{metric.name} {metric.value:g} ({metric.data})"
    if not full:
        return text
    by = f" ({metric.source})" if metric.source else ""
    original = "" if metric.original is None else f"; the original: {metric.original:g}{by}"
    return text + original + (f"; `{metric.command}`" if metric.command else "")


def _here(card: Card) -> bool:
    return any(card.find(entry) is not None for entry in card.weights)


def _size(card: Card) -> int | None:
    return _entry_size(card, card.weights[0]) if card.weights else None


def _entry_size(card: Card, entry: Weights) -> int | None:
    path = card.find(entry)
    return entry.bytes or entry.about_bytes if path is None else path.stat().st_size


def _as_json(card: Card) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(card) | {"folder": str(card.folder), "size": _size(card), "here": _here(card)}
