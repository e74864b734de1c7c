"""What of class folders may be learnt from, where the rest is measured."""

from __future__ import annotations

from collections.abc import Sequence

from visionkit.compress.trials import DataChoice
from visionkit.errors import UsageError

__all__ = ["check_train_part"]


def check_train_part(choice: DataChoice, labels: Sequence[str]) -> None:
    """Class folders say what may be learnt from: where nothing does, all images are measured.

    Raises:
        UsageError: `train-part-missing`.
    """
    from visionkit.train.class_folders import read_class_folders

    if choice.split is None and "train" not in read_class_folders(choice.data, tuple(labels)).parts.values():
        raise UsageError(
            "train-part-missing",
            f"{choice.data} has no part train: all its images are measured, so none may be learnt from; give --split",
        )
