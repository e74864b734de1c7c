"""From a model and labelled images to a verdict: build the variants, measure them, decide, write it down."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.compress.measure_variants import compare_measured, time_models
from visionkit.compress.report import render_quantize_report, report_table
from visionkit.compress.report_data import Disagreement, LayerDamage, QuantizeReport, RescueStep
from visionkit.compress.trials import DataChoice, Frames, Measured, Trial, make_trial
from visionkit.compress.variants import Kind, Variant, Workshop, build_variant, check_kinds
from visionkit.compress.verdict import VariantFacts, decide, judge
from visionkit.compress.wishes import Wishes, noticed, settings_of
from visionkit.errors import ModelError, VisionkitError

if TYPE_CHECKING:
    from visionkit.weights import Card

__all__ = ["Judged", "Wishes", "judge_variants"]

REFERENCE, PAGE, TABLE = "float32", "report.html", "verdict.json"
PICTURES = 6
Tell = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Judged:
    """The report, where it lies, and what could not be measured on."""

    report: QuantizeReport
    folder: Path
    problems: Sequence[Any]


def judge_variants(
    model: str | Path,
    choice: DataChoice,
    wishes: Wishes,
    out: str | Path,
    *,
    overwrite: bool = False,
    command: str = "",
    tell: Tell = lambda _: None,
    progress: Progress | None = None,
) -> Judged:
    """Build the variants of a model, measure each, and write the models, `report.html` and `verdict.json` to a folder.

    The folder appears when all is done, or not at all.

    Args:
        model: a card's name or folder, or a `.tflite` that was exported from one in float.
        out: the new folder.
        command: what the report says it was made by.
        tell: is given a line at each step.

    Raises:
        UsageError: `kind-unknown`.
        ModelError: the model is not to be had, is not judged (`model-unfit`), or is no float one.
        InputError: the data is none.
        OutputError: `exists`, `output-unwritable`, `disk-full`.
    """
    from visionkit.export.folder import new_folder

    kinds = check_kinds(wishes.kinds)
    card, given = _card(model)
    trial = make_trial(card, choice)
    frames = trial.frames(wishes.unlabelled, count=wishes.frames, seed=wishes.seed, xyxy=wishes.box)
    how: dict[str, Any] = {"count": wishes.samples, "seed": wishes.seed, "trusted": wishes.trust_calibration}
    calibration = trial.calibrate(wishes.calibration if any(kind.calibrated for kind in kinds) else None, **how)
    with new_folder(out, overwrite=overwrite) as folder:
        bench = _Bench(trial, wishes, frames, folder, tell, progress)
        bench.start(model, given)
        workshop = Workshop(
            bench.source,
            None if given else str(model),
            choice,
            functools.partial(calibration, bench.source),
            seed=wishes.seed,
        )
        report = bench.run(card, kinds, workshop, command)
        _write(report, folder)
    return Judged(report, Path(out), bench.reference.problems)


def _card(model: str | Path) -> tuple[Card, Path | None]:
    """The card, and the file where the model is an exported one."""
    from visionkit.weights import load_card
    from visionkit.weights.artifact import read_artifact

    artifact = read_artifact(model)
    if artifact is None:
        return load_card(model), None
    if artifact.format != "litert" or artifact.kind != REFERENCE:
        raise ModelError(
            "model-unfit",
            f"{model} is {artifact.kind} in {artifact.format}; variants are made of a card, or of a float .tflite.",
        )
    return artifact.card, artifact.path


class _Bench:
    """One run: what is measured on, and what was found so far."""

    def __init__(
        self,
        trial: Trial,
        wishes: Wishes,
        frames: Frames,
        folder: Path,
        tell: Tell,
        progress: Progress | None,
    ) -> None:
        self.trial, self.wishes, self.frames = trial, wishes, frames
        self.folder, self.tell, self.progress = folder, tell, progress
        self.source = folder / f"{REFERENCE}.tflite"
        self.measured: dict[str, Measured] = {}
        self.apart: dict[str, Sequence[Disagreement]] = {}  # on frames without labels

    @property
    def reference(self) -> Measured:
        """What float answered."""
        return self.measured[REFERENCE]

    def start(self, model: str | Path, given: Path | None) -> None:
        """Export the float model and measure it."""
        if given is None:
            from visionkit.export import export_model

            self.tell("exporting float32")
            export_model(model, self.source, format="litert")
        else:
            shutil.copyfile(given, self.source)
        self.tell(f"float32: measuring on {len(self.trial.samples)} {self.trial.nouns.units}")
        self.measured[REFERENCE] = self._measure(self.source)

    def run(self, card: Card, kinds: Sequence[Kind], workshop: Workshop, command: str) -> QuantizeReport:
        """Everything else, up to the report."""
        variants = [self._made(kind, workshop) for kind in kinds]
        facts = [self._facts(variant) for variant in variants]
        weakest = self._weakest(kinds, facts)
        layers = self._ranked(weakest, workshop) if weakest and self.wishes.ranked else []
        steps: list[RescueStep] = []
        if weakest and self.wishes.rescue and layers and not self._is_good(facts[kinds.index(weakest)]):
            steps, saved = self._rescue(weakest, workshop, layers, facts[kinds.index(weakest)])
            variants.append(saved)
            facts.append(steps[-1].facts)
        self.tell("timing, all in turns")
        models = {REFERENCE: self.source, **{one.kind: one.path for one in variants if one.path is not None}}
        times = time_models(self.trial, models)
        reference = dataclasses.replace(self._plain(), timings=times[REFERENCE])
        facts = [dataclasses.replace(one, timings=times.get(one.kind, ())) for one in facts]
        timed = {one.kind: one for one in facts}
        steps = [dataclasses.replace(step, facts=timed.get(step.facts.kind, step.facts)) for step in steps]
        decision = decide(reference, facts, self.wishes.bounds, self.trial.metric, self.trial.nouns)
        return QuantizeReport(
            title=f"{card.name} on {self._data(workshop)}",
            metric=self.trial.metric,
            class_metric=self.trial.class_metric,
            counted=self.trial.counted,
            nouns=self.trial.nouns,
            reference=reference,
            variants=facts,
            decision=decision,
            bounds=self.wishes.bounds,
            pictures={
                one.kind: self.trial.differ(self.reference, self.measured[one.kind], PICTURES)
                for one in variants
                if one.kind in self.measured
            },
            unlabelled={one.kind: self.apart[one.kind] for one in variants if one.kind in self.apart},
            layers=layers,
            ranked=weakest.name if weakest and layers else "",
            rescue=steps,
            settings=settings_of(card, self.wishes, self.trial, workshop.data),
            command=command,
            notes=noticed(self.wishes, self.trial, variants, self.reference.problems),
        )

    def _data(self, workshop: Workshop) -> str:
        return workshop.data.data.resolve().name

    def _measure(self, path: Path) -> Measured:
        task = self.trial.load(path, 1)
        try:
            return self.trial.measure(task, self.progress)
        finally:
            if hasattr(task, "close"):
                task.close()

    def _made(self, kind: Kind, workshop: Workshop, name: str = "") -> Variant:
        kept = f", {len(workshop.keep_float)} layers in float" if workshop.keep_float else ""
        self.tell(f"{kind.name}: building{kept}")
        return build_variant(kind, workshop, self.folder / f"{name or kind.name}.tflite", name=name or None)

    def _facts(self, variant: Variant) -> VariantFacts:
        """All that is known of a variant but its times."""
        if variant.path is None:
            self.tell(f"{variant.kind}: left out, {variant.failed}")
            return VariantFacts(variant.kind, failed=variant.failed, faults=variant.faults)
        self.tell(f"{variant.kind}: measuring")
        try:
            found = self._measure(variant.path)
        except ModelError as error:
            return VariantFacts(variant.kind, failed=error.message)
        self.measured[variant.kind] = found
        _, metric, drop, classes = compare_measured(self.trial, self.reference, found)
        return VariantFacts(
            variant.kind,
            metric=metric,
            drop=drop,
            images=found.outcome.images,
            counted=int(found.outcome.counts.sum()),
            classes=classes,
            agreement=self._agreement(variant),
            frames=len(self.frames),
            **_sizes(variant.path),
            faults=variant.faults,
            notes=variant.notes,
        )

    def _plain(self) -> VariantFacts:
        """The float model beside itself, without its times."""
        _, metric, drop, classes = compare_measured(self.trial, self.reference, self.reference)
        images, counted = self.reference.outcome.images, int(self.reference.outcome.counts.sum())
        return VariantFacts(REFERENCE, metric, drop, images, counted, classes, **_sizes(self.source))

    def _agreement(self, variant: Variant) -> float:
        """With float on frames without labels; the worst of them are kept."""
        if not self.frames or variant.path is None:
            return float("nan")
        tasks = [self.trial.load(one, 1) for one in (self.source, variant.path)]
        try:
            score, self.apart[variant.kind] = self.trial.compare(tasks[0], tasks[1], self.frames, PICTURES)
            return score
        finally:
            for task in tasks:
                if hasattr(task, "close"):
                    task.close()

    def _weakest(self, kinds: Sequence[Kind], facts: Sequence[VariantFacts]) -> Kind | None:
        """The kind whose layers are ranked: of those that can keep layers in float the first that is not good."""
        built = [
            (self._is_good(one), kind)
            for kind, one in zip(kinds, facts, strict=True)
            if kind.rescuable and one.failed is None
        ]
        return min(built, key=lambda pair: pair[0])[1] if built else None

    def _is_good(self, facts: VariantFacts) -> bool:
        """Whether a variant's quality is within bounds; more layers in float would not give more images."""
        bounds = self.wishes.bounds
        ruling = judge(facts, self._plain(), bounds, self.trial.metric, self.trial.nouns)
        enough = facts.drop is not None and facts.drop.high <= bounds.max_drop
        return ruling.verdict == "ship" or (ruling.verdict == "unsure" and enough)

    def _ranked(self, kind: Kind, workshop: Workshop) -> list[LayerDamage]:
        from visionkit.compress.rank import rank_layers

        self.tell(f"{kind.name}: ranking layers by the damage they do")
        try:
            return rank_layers(self.source, workshop.calibration(), most=self.wishes.ranked)
        except VisionkitError as error:
            self.tell(f"{kind.name}: layers are not ranked, {error.message}")
            return []

    def _rescue(
        self, kind: Kind, workshop: Workshop, layers: Sequence[LayerDamage], first: VariantFacts
    ) -> tuple[list[RescueStep], Variant]:
        """Steps, and the variant of the last one."""
        from visionkit.compress.rank import layer_pattern
        from visionkit.compress.rescue import rescue

        name = f"{kind.name}-rescued"
        made: dict[tuple[str, ...], Variant] = {}

        def trying(kept: tuple[str, ...]) -> VariantFacts:
            patterns = tuple(layer_pattern(layer) for layer in kept)
            variant = self._made(kind, dataclasses.replace(workshop, keep_float=patterns), f"{name}-{len(kept)}")
            made[kept] = variant
            return dataclasses.replace(self._facts(variant), kind=name)

        steps = rescue(layers, trying, self._is_good, first)
        kept = steps[-1].kept
        for one, variant in made.items():
            found, apart = self.measured.pop(variant.kind, None), self.apart.pop(variant.kind, None)
            if one != kept and variant.path is not None:
                variant.path.unlink()
            elif variant.path is not None and found is not None:
                path = variant.path.rename(self.folder / f"{name}.tflite")
                made[one] = dataclasses.replace(variant, kind=name, path=path)
                self.measured[name] = found
                self.apart |= {} if apart is None else {name: apart}
        return steps, made.get(kept, Variant(name, failed="no layer was left to keep in float"))


def _sizes(path: Path) -> dict[str, Any]:
    """Of the file as it is shipped, with the card and the probes in it."""
    from visionkit.compress.operations import zipped_size

    return {"size": path.stat().st_size, "zipped": zipped_size(path)}


def _write(report: QuantizeReport, folder: Path) -> None:
    from visionkit.io import write_json

    (folder / PAGE).write_text(render_quantize_report(report), encoding="utf-8")
    write_json(folder / TABLE, report_table(report))
