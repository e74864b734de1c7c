"""Model files: the five formats, and what is said about files that are something else."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from tests.runtime.nets import BATCH
from visionkit.errors import ModelError, UsageError
from visionkit.runtime import compile_model, load_tflite
from visionkit.runtime.quiet import import_keras, import_tensorflow, quiet
from visionkit.runtime.vet import vet_tflite


@pytest.fixture(scope="module")
def folder(tmp_path_factory, net, artifacts):
    folder = tmp_path_factory.mktemp("models")
    net.save(folder / "net.keras")
    (folder / "net.tflite").write_bytes(artifacts(".tflite"))
    (folder / "net.onnx").write_bytes(artifacts(".onnx"))
    with quiet():
        net.export(folder / "net_saved", verbose=False)
    return folder


def test_a_keras_file_runs_under_its_own_names(folder, feed, expected, tmp_path):
    with compile_model(folder / "net.keras", runtime="litert", batch=BATCH, cache_dir=tmp_path) as runner:
        outputs = runner(**feed)
    for name, reference in expected.items():
        np.testing.assert_allclose(outputs[name], reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("runtime", ["auto", "savedmodel", "litert", "onnxruntime"])
def test_a_trusted_savedmodel_runs_in_any_runtime(folder, feed, expected, tmp_path, runtime):
    with compile_model(folder / "net_saved", runtime=runtime, batch=BATCH, cache_dir=tmp_path, trust=True) as runner:
        outputs = runner(**{name: feed[name] for name in runner.inputs})
        assert sorted(runner.inputs) == ["apple", "zebra"]
    for name, reference in expected.items():
        np.testing.assert_allclose(outputs[name], reference, rtol=0, atol=1e-5)


def test_a_savedmodel_is_not_touched_without_trust(folder, tmp_path):
    compile_model(folder / "net_saved", runtime="litert", batch=BATCH, cache_dir=tmp_path, trust=True)
    with pytest.raises(ModelError, match="trust") as caught:  # remembered or not
        compile_model(folder / "net_saved", runtime="litert", batch=BATCH, cache_dir=tmp_path)
    assert caught.value.slug == "model-unsafe"


def test_an_onnx_file_runs_in_what_opens_it(folder, feed, expected, tmp_path):
    for _ in range(2):
        with compile_model(folder / "net.onnx", batch=BATCH, cache_dir=tmp_path) as runner:
            assert runner.name in ("onnxruntime", "openvino")
            assert list(runner.inputs) == ["input_0", "input_1"]
            outputs = runner(input_0=feed["zebra"], input_1=feed["apple"])
        np.testing.assert_allclose(outputs["output_1"], expected["map"], rtol=0, atol=1e-5)
    with pytest.raises(UsageError, match="runs in onnxruntime or openvino"):
        compile_model(folder / "net.onnx", runtime="litert", cache_dir=tmp_path)


def test_a_tflite_file_runs_in_litert_alone(folder, feed, expected, tmp_path):
    with compile_model(folder / "net.tflite", batch=BATCH, cache_dir=tmp_path) as runner:
        outputs = runner(input_0=feed["zebra"], input_1=feed["apple"])
    np.testing.assert_allclose(outputs["output_1"], expected["map"], rtol=0, atol=1e-5)
    with pytest.raises(UsageError, match="runs in litert"):
        compile_model(folder / "net.tflite", runtime="onnxruntime", cache_dir=tmp_path)
    with pytest.raises(UsageError, match=r"made for batches of \{2\}, not 3"):
        compile_model(folder / "net.tflite", batch=3, cache_dir=tmp_path)


def test_a_tflite_with_files_appended_still_runs(folder, feed, tmp_path):
    path = tmp_path / "labelled.tflite"
    path.write_bytes((folder / "net.tflite").read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "cat\ndog\n")
    assert load_tflite(path)(input_0=feed["zebra"], input_1=feed["apple"])


def test_every_signature_of_a_tflite_can_be_called(tmp_path):
    tf = import_tensorflow()

    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 3), tf.float32, name="a")])
        def double(self, a):
            return {"result": a * 2.0}

        @tf.function(input_signature=[tf.TensorSpec((1, 5), tf.float32, name="b")])
        def negate(self, b):
            return {"opposite": -b}

    module = Two()
    with quiet():
        tf.saved_model.save(module, str(tmp_path / "two"), {"double": module.double, "negate": module.negate})
        converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "two"), signature_keys=["double", "negate"])
        (tmp_path / "two.tflite").write_bytes(converter.convert())
    with load_tflite(tmp_path / "two.tflite", signature="double") as runner:
        np.testing.assert_array_equal(runner(a=np.full((1, 3), 2, np.float32))["result"], [[4, 4, 4]])
    with load_tflite(tmp_path / "two.tflite", signature="negate") as runner:
        first = runner(b=np.full((1, 5), 2, np.float32))["opposite"]
        second = runner(b=np.full((1, 5), 3, np.float32))["opposite"]
        np.testing.assert_array_equal(first, np.full((1, 5), -2))
        np.testing.assert_array_equal(second, np.full((1, 5), -3))
    with pytest.raises(ModelError, match="has the signatures") as caught:
        load_tflite(tmp_path / "two.tflite")
    assert caught.value.slug == "model-signature"


def test_load_tflite_needs_numpy_and_litert_only(folder, child_environment):
    code = f"""
import sys
for name in ("tensorflow", "keras", "onnxruntime", "openvino", "cv2", "av", "click", "rich", "scipy", "onnx"):
    sys.modules[name] = None  # importing it now raises
import numpy as np
from visionkit.runtime import load_tflite
runner = load_tflite({str(folder / "net.tflite")!r}, threads=1)
outputs = runner(input_0=np.zeros((2, 5, 7, 3), np.float32), input_1=np.zeros((2, 4), np.float32))
print(sorted(outputs), outputs["output_1"].shape, runner.threads)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=child_environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "['output_0', 'output_1', 'output_2'] (2, 3, 5, 4) 1\n"


def test_importing_the_package_loads_no_runtime(child_environment):
    code = """
import sys, visionkit.runtime
print({"tensorflow", "keras", "onnxruntime", "openvino", "ai_edge_litert", "numpy"} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=child_environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("share", range(20))
def test_d7_a_truncated_tflite_is_refused(folder, tmp_path, share):
    content = (folder / "net.tflite").read_bytes()
    path = tmp_path / "cut.tflite"
    path.write_bytes(content[: len(content) * share // 20])
    with pytest.raises(ModelError, match=r"cut\.tflite'.*bytes") as caught:
        load_tflite(path)
    assert caught.value.slug == "model-corrupt"


def test_d12_files_that_are_something_else_are_named(folder, tmp_path):
    content = (folder / "net.keras").read_bytes()
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 1
    cases = {
        "cut.keras": (content[: len(content) // 2], "is not a .keras archive: it looks like a cut-off zip"),
        "empty.keras": (b"", "is empty"),
        "text.keras": (b"hello, this is text\n", "is not a .keras archive: it is text"),
        "hdf.keras": (b"\x89HDF\r\n\x1a\n" + bytes(64), "looks like an HDF5 file"),
        "lite.keras": ((folder / "net.tflite").read_bytes(), "it is a LiteRT model"),
        "flip.keras": (bytes(flipped), "is a damaged archive"),
        "text.tflite": (b"hello, this is text\n", "TFL3 is missing"),
        "text.onnx": (b"hello, this is text\n", "is refused by"),
    }
    for name, (data, words) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelError, match=words) as caught:
            compile_model(tmp_path / name, cache_dir=tmp_path / "cache", runtime="auto")
        assert name in caught.value.message
        assert caught.value.slug == "model-corrupt"


@pytest.mark.parametrize("name", ["gone.keras", "gone.tflite", "gone.onnx", "gone"])
def test_a_path_to_nothing_is_told(tmp_path, name):
    with pytest.raises(ModelError, match=f"{name}' does not exist") as caught:
        compile_model(tmp_path / name)
    assert caught.value.slug == "model-missing"


def test_a_path_to_no_model_is_told(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "old.h5").write_bytes(b"\x89HDF")
    for path, words in ((tmp_path, "without saved_model.pb"), (tmp_path / "photo.jpg", "no model file")):
        with pytest.raises(ModelError, match=words) as caught:
            compile_model(path)
        assert caught.value.slug == "model-format"
    with pytest.raises(ModelError, match=r"save the model as \.keras"):
        compile_model(tmp_path / "old.h5")


def test_d1_a_lambda_in_a_keras_file_does_not_run(tmp_path):
    keras = import_keras()
    canary = tmp_path / "canary"
    image = keras.Input((3, 5, 1), name="image")
    layer = keras.layers.Lambda(lambda x, path=str(canary): (open(path, "w").close(), x)[1])  # noqa: PTH123
    keras.Model(image, layer(image)).save(tmp_path / "evil.keras")
    canary.unlink()
    with pytest.raises(ModelError, match="wants to run code and is refused") as caught:
        compile_model(tmp_path / "evil.keras", cache_dir=tmp_path / "cache")
    assert caught.value.slug == "model-unsafe"
    assert not canary.exists()


def test_d13_an_archive_that_names_a_place_outside_is_refused(folder, tmp_path):
    path = tmp_path / "slip.keras"
    path.write_bytes((folder / "net.keras").read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside.txt", "x")
    with pytest.raises(ModelError, match="a member outside itself") as caught:
        compile_model(path, cache_dir=tmp_path / "cache")
    assert caught.value.slug == "model-unsafe"


def test_d9_an_archive_that_unpacks_to_far_too_much_is_refused(folder, tmp_path):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(100 << 20))
    with pytest.raises(ModelError, match=r"unpacks to 104,857,602 bytes"):
        compile_model(path, cache_dir=tmp_path / "cache")


def test_d6_a_tflite_that_kills_or_hangs_its_process_is_told(folder, tmp_path, monkeypatch):
    path = folder / "net.tflite"
    content = path.read_bytes()
    crash, hang = tmp_path / "crash", tmp_path / "hang"
    for place, code in ((crash, "import os; os.kill(os.getpid(), 11)"), (hang, "import time; time.sleep(60)")):
        place.mkdir()
        (place / "ai_edge_litert.py").write_text(code)  # stands for native code that goes wrong
    for place, slug, words in ((crash, "model-crashed", "signal 11"), (hang, "model-timeout", "within 2 s")):
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(place))
            with pytest.raises(ModelError, match=words) as caught:
                vet_tflite(path, content, "net", tmp_path / "cache", timeout_s=2)
        assert caught.value.slug == slug
    assert not list((tmp_path / "cache").rglob("*-*")), "a model that failed was remembered as good"


def test_a_tflite_that_was_tried_is_not_tried_again(folder, tmp_path, monkeypatch):
    path = folder / "net.tflite"
    content = path.read_bytes()
    vet_tflite(path, content, "net", tmp_path)
    assert len(list((tmp_path / "vetted").iterdir())) == 1
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("tried again"))
    vet_tflite(path, content, "net", tmp_path)


def test_a_name_of_any_bytes_is_shown_escaped(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\x1b[31m\xff.keras")
    with pytest.raises(ModelError) as caught:
        compile_model(path)
    assert "\x1b" not in caught.value.message
    caught.value.message.encode()
