"""Fault rows E1 to E7, E10 and E13 at the level of `visionkit.io`: every way an output cannot be written."""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.io.clips import numbered
from tests.io.readback import read_back, snapshot
from visionkit.errors import OutputError, UsageError
from visionkit.io import JsonlWriter, RunFolder, VideoWriter, check_output, encoders, write_json

FRAMES = 40
SIZE_HW = (240, 320)
BACKENDS = ["pyav", "opencv"]


def write_video(path: Path, codec: object = "auto", **options: object) -> VideoWriter:
    with VideoWriter(path, size_hw=SIZE_HW, codec=codec, **options) as writer:
        for i in range(FRAMES):
            writer.write(numbered(i, SIZE_HW), 40.0 * i, 40.0)
    return writer


def write_rows(path: Path, **options: object) -> None:
    with JsonlWriter(path, **options) as writer:
        for i in range(2000):
            writer.write({"index": i, "text": "x" * 50})


WRITERS = {
    "video": (write_video, "out.mp4"),
    "rows": (write_rows, "out.jsonl"),
    "json": (
        lambda path, **options: write_json(path, list(range(5000)), **{"overwrite": False, **options}),
        "out.json",
    ),
}
writers = pytest.mark.parametrize(("write", "name"), WRITERS.values(), ids=WRITERS)


@pytest.fixture
def largest_file() -> Iterator[object]:
    """A function that sets the size beyond which no file can grow: a full disk without a disk (Linux says EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_e1_the_disk_is_full_at_every_size_until_it_fits(tmp_path, largest_file, backend):
    codec = next(e for e in encoders.ENCODERS if e.backend == backend and ".mp4" in e.suffixes)
    write_video(tmp_path / "whole.mp4", codec)
    whole = (tmp_path / "whole.mp4").stat().st_size
    fits, full = 0, 0
    for size in [0, 1, *range(4096, whole + 4096, max(4096, whole // 24)), whole - 1, whole, whole + 4096]:
        path = tmp_path / "out.mp4"
        largest_file(size)
        slug = None
        try:
            write_video(path, codec)
        except OutputError as error:
            slug = error.slug
        largest_file(resource.RLIM_INFINITY)
        if slug is None:
            assert size >= whole
            assert len(read_back(path).images) == FRAMES
            path.unlink()
            fits += 1
        else:
            assert slug == "disk-full"
            full += 1
        assert sorted(os.listdir(tmp_path)) == ["whole.mp4"]
    assert fits >= 2
    assert full >= 5


@pytest.mark.parametrize("kind", ["rows", "json"])
def test_e1_rows_and_json_on_a_full_disk(tmp_path, largest_file, kind):
    write, name = WRITERS[kind]
    write(tmp_path / name)
    whole = (tmp_path / name).stat().st_size
    (tmp_path / name).unlink()
    for size in [0, 1, 4096, whole // 2, whole - 1, whole]:
        largest_file(size)
        if size < whole:
            with pytest.raises(OutputError, match="no room left") as caught:
                write(tmp_path / name)
            assert caught.value.slug == "disk-full"
            assert snapshot(tmp_path) == {}
        else:
            write(tmp_path / name)


def test_e1_a_real_full_disk(tmp_path):
    """The same on a file system that is truly full, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs '{disk}' 2>/dev/null") != 0:  # noqa: S605
        pytest.skip("needs the right to mount a small tmpfs; the file size limit stands in for it")
    try:
        for write, name in WRITERS.values():
            filler = disk / "filler"
            filler.write_bytes(b"x" * (56 << 10))
            with pytest.raises(OutputError) as caught:
                write(disk / name)
            assert caught.value.slug == "disk-full"
            assert list(snapshot(disk)) == ["filler"]
            filler.unlink()
    finally:
        os.system(f"umount '{disk}'")  # noqa: S605


@writers
def test_e3_missing_folder(tmp_path, write, name):
    with pytest.raises(OutputError, match="No such file or directory") as caught:
        write(tmp_path / "none" / name)
    assert caught.value.slug == "output-unwritable"
    assert snapshot(tmp_path) == {}


@writers
def test_e3_folder_in_the_targets_place(tmp_path, write, name):
    (tmp_path / name).mkdir()
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="Is a directory"):
            write(tmp_path / name, overwrite=overwrite)
    assert snapshot(tmp_path) == {name: "folder"}


@writers
def test_e3_file_in_the_folders_place(tmp_path, write, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="Not a directory"):
        write(tmp_path / "file" / name)


@writers
def test_e3_name_too_long(tmp_path, write, name):
    suffix = Path(name).suffix
    with pytest.raises(OutputError, match="File name too long"):
        write(tmp_path / ("x" * (256 - len(suffix)) + suffix))
    assert snapshot(tmp_path) == {}
    write(tmp_path / ("x" * (255 - len(suffix)) + suffix))
    assert len(snapshot(tmp_path)) == 1


@writers
def test_e3_read_only_folder(tmp_path, write, name):
    folder = tmp_path / "read-only"
    folder.mkdir()
    if os.getuid() != 0:
        folder.chmod(0o555)
        with pytest.raises(OutputError, match="Permission denied"):
            write(folder / name)
        return
    # The superuser may write anywhere: a child without that right tries.
    tmp_path.chmod(0o711)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for parent in reversed(tmp_path.parents):
                if not os.access(parent, os.X_OK):
                    os._exit(3)
            os.setgroups([])
            os.setuid(65534)
            write(folder / name)
        except OutputError as error:
            os.write(writer, f"{error.slug} {error.message}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    assert said.startswith("output-unwritable")
    assert "Permission denied" in said
    assert snapshot(folder) == {}


def test_e3_device_without_names():
    with pytest.raises(OutputError) as caught:
        check_output("/proc/visionkit.mp4")
    assert caught.value.slug == "output-unwritable"


def test_e4_no_pyav_falls_back_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    writer = write_video(tmp_path / "out.mp4")
    assert (writer.codec, writer.encoder, writer.backend) == ("mpeg4", "mp4v", "opencv")
    assert writer.notes[0].startswith("video is written as mpeg4 by mp4v (libx264: PyAV is not installed")
    monkeypatch.undo()
    assert len(read_back(tmp_path / "out.mp4").images) == FRAMES


def test_e4_an_explicit_codec_without_encoder_lists_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(OutputError, match=r"available --codec: mpeg4, mjpeg$") as caught:
        write_video(tmp_path / "out.mp4", "h264")
    assert caught.value.slug == "no-encoder"
    with pytest.raises(OutputError, match=r"no working encoder for '\.webm' video"):
        write_video(tmp_path / "out.webm")
    assert snapshot(tmp_path) == {}


def test_e4_an_encoder_that_is_not_in_this_pyav(tmp_path, monkeypatch):
    import av

    codec = av.codec.Codec

    def without(name: str, mode: str) -> object:
        if name.startswith("libx26"):
            raise av.codec.codec.UnknownCodecError(name)
        return codec(name, mode)

    monkeypatch.setattr(av.codec, "Codec", without)
    writer = write_video(tmp_path / "out.mp4")
    assert (writer.encoder, writer.notes) == (
        "libvpx-vp9", ["video is written as vp9 by libvpx-vp9 (libx264: not in this PyAV)"],
    )  # fmt: skip
    with pytest.raises(OutputError, match=r"h265 video .*available --codec: vp9, mpeg4, av1, mjpeg"):
        write_video(tmp_path / "h265.mp4", "h265")


def test_e4_a_size_that_the_encoder_does_not_take(tmp_path):
    with pytest.raises(OutputError) as caught:
        VideoWriter(tmp_path / "out.mp4", size_hw=(2, 2), codec="h265")
    assert caught.value.slug == "no-encoder"
    assert snapshot(tmp_path) == {}


@writers
def test_e5_an_existing_target_is_kept(tmp_path, write, name):
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(OutputError, match="already exists; pass --overwrite") as caught:
        write(tmp_path / name)
    assert caught.value.slug == "exists"
    assert (tmp_path / name).read_bytes() == b"precious"
    write(tmp_path / name, overwrite=True)
    assert (tmp_path / name).read_bytes() != b"precious"
    assert list(snapshot(tmp_path)) == [name]


def test_e5_overwriting_replaces_only_on_success(tmp_path, largest_file):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"precious")
    largest_file(20_000)
    with pytest.raises(OutputError):
        write_video(path, overwrite=True)
    assert snapshot(tmp_path).keys() == {"out.mp4"}
    assert path.read_bytes() == b"precious"


@writers
def test_e5_a_target_that_appears_meanwhile_is_kept(tmp_path, monkeypatch, write, name):
    fsync = os.fsync

    def meanwhile(descriptor: int) -> None:
        fsync(descriptor)
        (tmp_path / name).write_bytes(b"precious")

    monkeypatch.setattr(os, "fsync", meanwhile)
    with pytest.raises(OutputError, match="created by somebody else") as caught:
        write(tmp_path / name)
    assert caught.value.slug == "exists"
    assert (tmp_path / name).read_bytes() == b"precious"
    assert list(snapshot(tmp_path)) == [name]


@writers
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("dangling", [False, True])
def test_e6_a_symlink_is_not_followed(tmp_path, write, name, overwrite, dangling):
    if not dangling:
        (tmp_path / "real").write_bytes(b"precious")
    (tmp_path / name).symlink_to("real")
    before = snapshot(tmp_path)
    with pytest.raises(OutputError) as caught:
        write(tmp_path / name, overwrite=overwrite)
    assert caught.value.slug == "output-is-symlink"
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_e7_the_input_is_not_overwritten_by_any_of_its_names(tmp_path, overwrite):
    source = tmp_path / "in.mp4"
    write_video(source)
    os.link(source, tmp_path / "hard.mp4")
    (tmp_path / "soft.mp4").symlink_to("in.mp4")
    (tmp_path / "sub").mkdir()
    before = snapshot(tmp_path)
    names = [source, tmp_path / "hard.mp4", tmp_path / "soft.mp4", tmp_path / "sub/../in.mp4"]
    for target in names:
        for name in names:
            with pytest.raises(UsageError) as caught:
                VideoWriter(target, size_hw=SIZE_HW, audio_from=name, overwrite=overwrite)
            assert (caught.value.slug, caught.value.exit_code) == ("output-is-input", 2)
            with pytest.raises(UsageError):
                RunFolder(target, overwrite=overwrite, inputs=[name])
    assert snapshot(tmp_path) == before


def test_e10_the_unfinished_file_is_private_and_beside_its_target(tmp_path):
    old = os.umask(0o022)
    try:
        with VideoWriter(tmp_path / "out.mp4", size_hw=SIZE_HW) as writer:
            writer.write(numbered(0, SIZE_HW), 0.0)
            [temporary] = tmp_path.iterdir()
            assert temporary.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(old)
    assert list(snapshot(tmp_path)) == ["out.mp4"]
    assert (tmp_path / "out.mp4").stat().st_mode & 0o777 == 0o644


@writers
@pytest.mark.parametrize("call", ["fsync", "replace", "link", "open"])
def test_e13_each_system_call_fails_once(tmp_path, monkeypatch, write, name, call):
    """The n-th `call` fails with an input/output error, for every n: never a file under the final name unless whole."""
    write(tmp_path / f"whole{Path(name).suffix}")
    whole = (tmp_path / f"whole{Path(name).suffix}").read_bytes()
    real = getattr(os, call)
    for failing in range(20):
        calls = iter(range(1000))
        hit = []

        def flaky(*arguments, calls=calls, failing=failing, hit=hit, **options):
            if (call == "fsync" or str(tmp_path) in str(arguments[0])) and next(calls) == failing:
                hit.append(True)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, flaky)
            slug = None
            try:
                write(tmp_path / name, overwrite=call == "replace")
            except OutputError as error:
                slug = error.slug
        assert (slug == "output-unwritable") == bool(hit)
        if (tmp_path / name).exists():
            assert (tmp_path / name).read_bytes() == whole
            (tmp_path / name).unlink()
        assert list(snapshot(tmp_path)) == [f"whole{Path(name).suffix}"]
        if not hit:
            break
    assert failing >= 1
