"""Where an artifact is made: in a hidden folder beside its name, which it gets whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from visionkit.errors import OutputError, UsageError
from visionkit.export.folder import new_folder
from visionkit.io.files import NO_SPACE, OutputFile, check_output, output_error, sync_folder, writing_to
from visionkit.io.hidden import hidden_folder
from visionkit.io.text import safe_text

__all__ = ["check_target", "destination"]

DESCRIPTION = ".visionkit.json"
FULL = ("no space left", "disk quota exceeded", "file too large")


def check_target(path: str | os.PathLike[str], suffix: str, *, overwrite: bool = False) -> Path:
    """`path`, after every reason not to write an artifact there has been looked for; nothing heavy is imported.

    Raises:
        UsageError: `name-unfit`, its suffix is another format's, or its path no UTF-8.
        OutputError: `exists`, `output-is-symlink`, `output-unwritable`.
    """
    target = Path(path)
    if any("\ud800" <= char <= "\udfff" for char in str(target.absolute())):
        raise UsageError(
            "name-unfit",
            f"'{safe_text(target)}' has bytes in its path that are not UTF-8, and the libraries that write and read "
            "models take no others.",
        )
    if suffix and target.suffix.lower() != suffix:
        raise UsageError("name-unfit", f"the name must end in {suffix}. Received: '{safe_text(target)}'.")
    if suffix:
        return check_output(target, overwrite=overwrite)
    if target.suffix.lower() in (".tflite", ".keras", ".onnx", ".xml", ".h5"):
        raise UsageError("name-unfit", f"a SavedModel is a folder. Received: '{safe_text(target)}'.")
    with writing_to(target):
        target.parent.stat()
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "")
        if len(os.fsencode(target.name)) > os.pathconf(target.parent, "PC_NAME_MAX"):
            raise OSError(errno.ENAMETOOLONG, "")
    if os.path.lexists(target) and not (overwrite and _is_replaceable(target)):
        way = "it is no SavedModel, so name another" if overwrite else "pass --overwrite or choose another --out"
        raise OutputError("exists", f"'{safe_text(target)}' already exists; {way}")
    return target


def _is_replaceable(folder: Path) -> bool:
    """Whether it is a SavedModel or empty: no other folder goes away, whatever was asked."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return (folder / "saved_model.pb").is_file() or not any(folder.iterdir())


@contextlib.contextmanager
def destination(target: Path, suffix: str, *, overwrite: bool = False) -> Iterator[Path]:
    """Where to write the artifact; on leaving it gets its name, on an exception nothing of it remains.

    A file may have others beside it, called by its stem (`NAME.bin`): they are put in place before it.

    Raises:
        OutputError: as `check_target`, and `disk-full`.
    """
    with full_disk_told(target):
        if not suffix:
            with new_folder(target, overwrite=overwrite) as folder:
                yield folder
            return
        check_output(target, overwrite=overwrite)
        with hidden_folder(target, 0o700) as folder:
            made = folder / target.name
            yield made
            beside = sorted((file for file in folder.iterdir() if _is_beside(file, made)), key=_is_other)
            if not overwrite:
                _check_beside([target.with_name(file.name) for file in beside])
            for file in beside:
                _put(file, target.with_name(file.name), overwrite=True)
            _put(made, target, overwrite=overwrite)
            sync_folder(target.parent)


@contextlib.contextmanager
def full_disk_told(target: Path) -> Iterator[None]:
    """Within, what libraries say of a full disk in exceptions of their own becomes `disk-full`."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        if error.errno in NO_SPACE:
            raise output_error(error, target) from error
        raise
    except Exception as error:
        if any(_is_full(cause) for cause in _causes(error)):
            raise output_error(OSError(errno.ENOSPC, ""), target) from error
        raise


def _put(made: Path, target: Path, *, overwrite: bool) -> None:
    output = OutputFile(target, overwrite=overwrite)
    try:
        with writing_to(target):
            made.replace(output.temporary)
        output.publish()
    finally:
        output.discard()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in NO_SPACE
    # TensorFlow's and OpenVINO's exceptions carry the system's word only in their text.
    text = str(error).lower()
    return any(words in text for words in FULL)


def _is_beside(file: Path, made: Path) -> bool:
    return file.is_file() and file != made and file.name.startswith(f"{made.stem}.")


def _is_other(file: Path) -> bool:
    """Whether it is not the description, which comes first: it says whose the others are."""
    return not file.name.endswith(DESCRIPTION)


def _check_beside(targets: list[Path]) -> None:
    """Raises `exists` for a file in the way, but for those that an export left which was killed before its last."""
    there = [target for target in targets if os.path.lexists(target)]
    if there and not (there[0].name.endswith(DESCRIPTION) and b'"visionkit":' in there[0].read_bytes()):
        raise OutputError("exists", f"'{safe_text(there[0])}' already exists; pass --overwrite or choose another --out")
