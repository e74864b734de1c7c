"""Model files: what a path holds, said plainly when that is not what its name promises, opened as far as trusted."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from visionkit.errors import ModelError, UsageError
from visionkit.runtime.adaptors import find_adaptor
from visionkit.runtime.base import Runner
from visionkit.runtime.litert import open_litert
from visionkit.runtime.machine import default_threads
from visionkit.weights.artifact_store import folder_digest

if TYPE_CHECKING:
    import keras

    from visionkit.runtime.choose import Options
    from visionkit.runtime.programs import Program

__all__ = ["ModelFile", "load_keras_file", "load_tflite", "open_tflite_file"]

KINDS = {".keras": "keras", ".tflite": "tflite", ".onnx": "onnx", ".xml": "openvino"}
# A real network's weights hardly compress; a file that unpacks to a hundred times its size was made to fill memory.
UNPACK_RATIO = 100
UNPACK_FLOOR = 64 << 20
UNSAFE_WORDS = ("safe_mode", "lambda", "unsafe", "arbitrary code", "tfsmlayer", "not allowed", "disallowed")


def load_tflite(path: str | os.PathLike[str], threads: int | None = None, *, signature: str | None = None) -> Runner:
    """A runner over a `.tflite`; needs NumPy and ai-edge-litert only.

    Args:
        path: the file; it is read into memory, so later changes of the file do not matter.
        threads: cores to use; None is all that the process may use.
        signature: which signature of the file; None takes `serving_default`, the only one, or the main graph.

    Raises:
        ModelError: `model-missing`, `model-unreadable`, `model-corrupt`, `model-unsupported`, `model-signature`.
    """
    file = ModelFile(path, kind="tflite")
    return open_litert(
        file.read(), threads=default_threads() if threads is None else threads, key=signature, label=file.label
    )


class ModelFile:
    """A path that exists and looks like a model.

    Raises:
        ModelError: `model-missing`, `model-format`.
    """

    def __init__(self, path: str | os.PathLike[str], kind: str | None = None) -> None:
        self.path = Path(path)
        self.label = repr(os.fspath(path))  # repr: the name may hold anything
        self._content: bytes | None = None
        if not self.path.exists():
            raise ModelError("model-missing", f"{self.label} does not exist; check the path of the model")
        self.kind = kind or self._find_kind()
        if kind and self.path.is_dir():
            raise ModelError("model-format", f"{self.label} is a folder, not a .{kind} file")

    def _find_kind(self) -> str:
        if self.path.is_dir():
            if (self.path / "saved_model.pb").is_file():
                return "savedmodel"
            raise ModelError("model-format", f"{self.label} is a folder without saved_model.pb: not a SavedModel")
        suffix = self.path.suffix.lower()
        if suffix in (".h5", ".hdf5"):
            raise ModelError("model-format", f"{self.label} is a legacy HDF5 file; save the model as .keras")
        if suffix not in KINDS:
            raise ModelError(
                "model-format",
                f"{self.label} is no model file: .keras, .tflite, .onnx, .xml or SavedModel folder",
            )
        return KINDS[suffix]

    def read(self) -> bytes:
        """The whole file."""
        if self._content is None:
            try:
                self._content = self.path.read_bytes()
            except OSError as error:
                raise ModelError("model-unreadable", f"{self.label} cannot be read: {error.strerror}") from error
            if not self._content:
                raise ModelError("model-corrupt", f"{self.label} is empty (0 bytes); get it again")
        return self._content

    def digest(self) -> str:
        """sha256 of the file, or of a folder's files with their names."""
        if not self.path.is_dir():
            return hashlib.sha256(self.read()).hexdigest()
        return folder_digest(self.path, (path for path in self.path.rglob("*") if path.is_file()))

    def check_trust(self, trust: bool) -> None:
        """A SavedModel is a program: its operations can read and write files, some as soon as it is loaded."""
        if self.kind == "savedmodel" and not trust:
            raise ModelError(
                "model-unsafe",
                f"{self.label} is a SavedModel, which can run code; if you trust where it comes from, "
                "say so with trust=True (--trust-model)",
            )

    def program(self, batch: int, trust: bool, signature: str | None = None) -> Program:
        """The network in the file, or the one of a SavedModel's signatures, ready to be given to a runtime."""
        from visionkit.runtime import programs

        self.check_trust(trust)
        if self.kind == "savedmodel":
            return programs.SavedModelProgram(self.path, batch, signature)
        if self.kind == "onnx":
            return programs.OnnxProgram(self.read(), self.label)
        return programs.KerasProgram(load_keras_file(self.path), batch)


def open_tflite_file(
    file: ModelFile, options: Options, cache: Path | None, trust: bool, signature: str | None = None
) -> Runner:
    """A user's own `.tflite`, tried in a child process first unless it is trusted."""
    from visionkit.runtime.vet import vet_tflite

    content = file.read()
    if not trust:
        vet_tflite(file.path, content, file.label, cache, signature=signature)
    runner = open_litert(content, threads=options.threads, label=file.label, key=signature)
    leading = {spec.shape[0] for spec in runner.inputs.values() if spec.shape}
    if options.batch != 1 and leading != {options.batch}:
        runner.close()
        raise UsageError("batch-fixed", f"{file.label} was made for batches of {leading}, not {options.batch}")
    return runner


def open_openvino_file(file: ModelFile, options: Options) -> Runner:
    """An OpenVINO `.xml` with its `.bin` beside it."""
    from visionkit.runtime.openvino_runtime import open_openvino

    find_adaptor("openvino", options.precision)
    return open_openvino(file.path, threads=options.threads, label=file.label)


def load_keras_file(path: str | os.PathLike[str]) -> keras.Model:
    """The model in a `.keras`, loaded in safe mode always.

    Raises:
        ModelError: `model-missing`, `model-corrupt` with what the file is, `model-unsafe` where it carries code.
    """
    file = ModelFile(path, kind="keras")
    check_archive(file)
    from visionkit.runtime.quiet import import_keras, quiet

    keras = import_keras()
    import visionkit.layers  # noqa: F401  our layers are registered by being imported

    try:
        with quiet():
            return keras.saving.load_model(str(file.path), compile=False, safe_mode=True)
    except Exception as error:  # Keras raises TypeError, ValueError, KeyError, OSError … for a bad file
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        if any(word in reason.lower() for word in UNSAFE_WORDS):
            raise ModelError("model-unsafe", f"{file.label} wants to run code and is refused: {reason}") from error
        raise ModelError("model-corrupt", f"{file.label} does not load as a Keras model: {reason}") from error


def check_archive(file: ModelFile) -> None:
    """Refuses what is no `.keras` archive, is damaged, names members outside itself or unpacks to far too much."""
    size = file.path.stat().st_size
    if not size:
        raise ModelError("model-corrupt", f"{file.label} is empty (0 bytes); get it again")
    if not zipfile.is_zipfile(file.path):
        with file.path.open("rb") as stream:
            kind = describe(stream.read(16))
        raise ModelError("model-corrupt", f"{file.label} exists ({size:,} bytes) but is not a .keras archive: {kind}")
    try:
        with zipfile.ZipFile(file.path) as archive:
            members = archive.infolist()
            for member in members:
                if member.filename.startswith(("/", "\\")) or ".." in Path(member.filename).parts:
                    raise ModelError("model-unsafe", f"{file.label} names a member outside itself: {member.filename!r}")
            unpacked = sum(member.file_size for member in members)
            if unpacked > max(UNPACK_FLOOR, UNPACK_RATIO * size):
                raise ModelError("model-unsafe", f"{file.label} ({size:,} bytes) unpacks to {unpacked:,} bytes")
            if "config.json" not in archive.namelist():
                raise ModelError("model-corrupt", f"{file.label} is a zip without config.json: not a .keras model")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise ModelError("model-corrupt", f"{file.label} ({size:,} bytes) is a damaged archive: {error}") from error
    if damaged:
        raise ModelError("model-corrupt", f"{file.label} is a damaged archive: {damaged!r} fails its checksum")


def describe(head: bytes) -> str:
    """What a file that starts like this is."""
    marks = {
        b"PK": "a cut-off zip",
        b"\x89HDF": "an HDF5 file (.h5)",
        b"\x93NUMPY": "a NumPy array",
        b"\x08": "an ONNX file",
    }
    if head[4:8] == b"TFL3":
        return "it is a LiteRT model (.tflite)"
    for mark, name in marks.items():
        if head.startswith(mark):
            return f"it looks like {name}"
    return "it is text" if head.decode("ascii", errors="replace").isprintable() else "its content is unknown"
