"""The page of an evaluation of a detector: precision over recall, AP of each class, the worst images."""

from __future__ import annotations

from visionkit.evaluate.detect import DetectEvaluation
from visionkit.train.detect_report import class_table, picture_of, pictures_html, precision_charts, worst_images
from visionkit.train.detection_images import DetectMaterial
from visionkit.train.page import page, percent, settings, table

__all__ = ["render_detect_evaluation"]


def render_detect_evaluation(
    result: DetectEvaluation, title: str, command: str, *, material: DetectMaterial | None = None
) -> str:
    """The evaluation as one HTML file that fetches nothing; every name in it is escaped."""
    material = material or DetectMaterial(cache_bytes=0)
    pictures = [
        picture_of(result.samples[k], material(result.samples[k]), result.answers[k], right, found)
        for k, right, found in worst_images(result.samples, result.answers)
    ]
    strict = [percent(result.strict.mean_ap), percent(result.scores.mean_ap_11_point)]
    sections = [
        f'<p class="big">mAP50 {percent(result.scores.mean_ap)}, {len(result.samples)} images.</p>'
        f"<p>mAP75 {strict[0]}; mAP50 by 11 points, as VOC 2007, {strict[1]}.</p>",
        f"<h2>Precision over recall</h2>{precision_charts(result.scores.curves, result.labels)}",
        f"<h2>Each class</h2>{class_table(result.scores.curves, result.labels)}",
    ]
    if result.coco is not None:
        rows = [[name, "–" if value is None else f"{value:.3f}"] for name, value in result.coco.items()]
        sections.append(f"<h2>COCO's numbers</h2>{table(['measure', 'value'], rows, numbers=1)}")
    sections += [
        pictures_html(pictures),
        f"<h2>How</h2>{settings(command, {'images': len(result.samples)}, [p.reason for p in result.problems])}",
    ]
    return page(title, sections)
