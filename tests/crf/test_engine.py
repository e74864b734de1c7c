"""The fast engines against the exact mean field: rows CRF-1, CRF-3, CRF-4 and CRF-6 with their controls."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.crf.cases import SETTINGS, right_of_three_regions, same_labels, settings, three_regions, two_regions
from visionkit.crf import (
    CRFParams,
    FastMeanField,
    available_engine,
    compiled,
    engine,
    mean_field,
    mean_field_batch,
    must_compile,
    plain,
    unary_from_probs,
)
from visionkit.crf import mean_field_exact as exactly

HAS_NUMBA = available_engine() == "numba"
LATTICES = [
    pytest.param("numba", marks=pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")),
    "scipy",
]


def far(a, b):
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("name", LATTICES)
def test_crf1_the_lattice_agrees_with_the_exact_sum(name):
    for params in settings():
        unary, image, _ = three_regions()
        right, fast = right_of_three_regions(params), mean_field(unary, image, params, engine=name)
        assert far(fast, right) < 0.08, params
        assert same_labels(fast, right) >= 0.99, params


# What pydensecrf does not have. Without a normalisation the weights must be as small as the sums are large.
OTHER_FORMS = [
    {"self_term": False},
    {"self_term": False, "normalization": "before"},
    {"self_term": False, "normalization": "after"},
    {"normalization": "none", "self_term": False},
    {"normalization": "none"},
    {"normalization": "before"},
    {"normalization": "after"},
]


def in_form(form, kernels, iterations):
    params = CRFParams(iterations=iterations, **kernels, **form)
    if params.normalization != "none":
        return params
    return dataclasses.replace(
        params, bilateral_weight=params.bilateral_weight / 150, gaussian_weight=params.gaussian_weight / 30
    )


@pytest.mark.parametrize("name", LATTICES)
@pytest.mark.parametrize("form", OTHER_FORMS)
def test_crf1_the_other_forms_agree_with_the_exact_sum_as_well(name, form):
    unary, image, _ = three_regions()
    for kernels in SETTINGS:
        for iterations in (1, 5):
            params = in_form(form, kernels, iterations)
            right, fast = right_of_three_regions(params), mean_field(unary, image, params, engine=name)
            assert far(fast, right) < 0.08, params
            assert same_labels(fast, right) >= 0.99, params


@pytest.mark.parametrize("name", LATTICES)
@pytest.mark.parametrize(("form", "most"), [(OTHER_FORMS[0], 0.3), (OTHER_FORMS[2], 0.3), (OTHER_FORMS[3], 0.15)])
def test_without_the_message_to_itself_the_lattice_needs_a_diagonal_of_one(name, form, most, monkeypatch):
    """Its own of 0.5 to 0.8, where 1 is taken away, is found by the same bound."""
    unary, image, _ = three_regions(noise=6)

    def worst():
        cases = [in_form(form, kernels, n) for kernels in SETTINGS for n in (1, 5)]
        right = [right_of_three_regions(params, 6.0) for params in cases]
        fast = [mean_field(unary, image, params, engine=name) for params in cases]
        pairs = list(zip(fast, right, strict=True))
        return max(far(*pair) for pair in pairs), min(same_labels(*pair) for pair in pairs)

    distance, same = worst()
    assert distance < most
    assert same >= 0.99
    for module in (compiled, plain):
        monkeypatch.setattr(module, "needs_unit_diagonal", lambda params: False)
    distance, same = worst()
    assert distance > most
    assert same < 0.99


def test_crf1_small_images_are_summed_exactly():
    unary, image, _ = three_regions()
    field = FastMeanField(image)
    assert field.engine == "exact"
    assert far(field(unary), exactly(unary, image)) < 1e-4


def test_crf1_the_wrong_ones_fail():
    unary, image, _ = three_regions(noise=3)
    params = settings()[6]  # theta_beta 3, theta_gamma 1, 1 iteration: pixels count for much of their own message
    right = exactly(unary, image, params)
    without_self = exactly(unary, image, dataclasses.replace(params, self_term=False))
    assert far(without_self, right) > 0.08
    assert same_labels(without_self, right) < 0.99
    for wrong in ({"bilateral_weight": 0}, {"normalization": "none"}):
        assert far(exactly(unary, image, dataclasses.replace(params, **wrong)), right) > 0.08, wrong
    labels_first = np.ascontiguousarray(unary.transpose(2, 0, 1)).reshape(unary.shape)
    assert same_labels(exactly(labels_first, image, params), right) < 0.9


@pytest.mark.parametrize("name", LATTICES)
def test_crf3_two_regions_are_cleaned(name):
    unary, image, labels, noisy = two_regions()
    both = mean_field(unary, image, CRFParams(), engine=name)
    assert (noisy == labels).mean() < 0.80
    assert (both.argmax(-1) == labels).mean() >= 0.99
    blurred = mean_field(unary, image, CRFParams(bilateral_weight=0), engine=name)
    assert (blurred.argmax(-1) == labels).mean() < 0.97


@pytest.mark.parametrize("name", LATTICES)
def test_crf4_invariants(name):
    unary, image, _ = three_regions((33, 47))
    nothing = CRFParams(bilateral_weight=0, gaussian_weight=0)
    assert far(mean_field(unary, image, nothing, engine=name), np.exp(-unary)) < 1e-6
    assert far(mean_field(unary, image, CRFParams(iterations=0), engine=name), np.exp(-unary)) < 1e-6
    q = mean_field(unary, image, engine=name)
    assert far(mean_field(unary[..., [2, 0, 1]], image, engine=name), q[..., [2, 0, 1]]) < 1e-6
    assert far(q.sum(-1), 1) < 1e-5
    assert q.dtype == np.float32


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"self_term": False},
        {"normalization": "none", "bilateral_weight": 0.02, "gaussian_weight": 0.05},
        {"normalization": "before"},
        {"normalization": "after", "self_term": False},
        {"bilateral_weight": 0},
        {"gaussian_weight": 0},
        {"theta_alpha": (20, 60), "theta_gamma": (2, 5), "theta_beta": (5, 20, 40)},
        {"compat": [[0, 1, 2], [0.5, -0.2, 1], [3, 1, 0]]},
    ],
)
def test_numba_and_scipy_compute_the_same(change):
    unary, image, _ = three_regions((37, 50), noise=20)
    params = CRFParams(iterations=3, **change)
    fast, slow = (mean_field(unary, image, params, engine=name) for name in ("numba", "scipy"))
    assert far(fast, slow) < 2e-5
    assert far(fast, exactly(unary, image, dataclasses.replace(params, iterations=1))) > 1e-4


@pytest.mark.parametrize("name", [*LATTICES, "exact"])
@pytest.mark.parametrize(
    ("size_hw", "channels", "labels"),
    [
        ((1, 1), 3, 1),
        ((1, 1), 1, 3),
        ((1, 40), 3, 2),
        ((40, 1), 1, 9),
        ((9, 11), 4, 40),
        ((6, 7), 9, 8),
        ((7, 9), 3, 255),
        ((13, 8), 4, 2),
    ],
)
def test_any_size_and_number_of_channels_and_labels(name, size_hw, channels, labels):
    rng = np.random.default_rng(1)
    unary = rng.random((*size_hw, labels)).astype(np.float32)
    image = rng.integers(0, 256, (*size_hw, channels)).astype(np.uint8)
    q = mean_field(unary, image, engine=name)
    assert q.shape == unary.shape
    assert far(q.sum(-1), 1) < 1e-5
    if name == "numba":
        assert far(q, mean_field(unary, image, engine="scipy")) < 2e-4


@pytest.mark.parametrize("name", [*LATTICES, "exact"])
@pytest.mark.parametrize("height", [1e4, 1e6])
def test_unaries_far_apart(name, height):
    """Costs beside which every message is nothing: the cheapest label wins, and nothing overflows."""
    rng = np.random.default_rng(0)
    wanted = rng.integers(0, 9, (14, 17))
    image = rng.integers(0, 256, (14, 17, 3)).astype(np.uint8)
    cheap = np.eye(9, dtype=np.float32)[wanted]
    for unary in (-height * cheap, height * (1 - cheap), height * (2 - cheap)):
        q = mean_field(unary, image, engine=name)
        assert np.array_equal(q.argmax(-1), wanted)
        assert far(q, cheap) < 1e-6
    same = mean_field(np.full((14, 17, 9), height), image, engine=name)
    assert far(same, 1 / 9) < 1e-5


def test_finite_costs_whose_sum_is_not_are_taken():
    unary = np.zeros((9, 13, 3), np.float32)
    unary[..., 1:] = 3e38
    assert (mean_field(unary, np.zeros((9, 13, 3)))[..., 0] == 1).all()


@pytest.mark.parametrize("name", [*LATTICES, "exact"])
def test_probabilities_of_zero(name):
    """A label that a network rules out may still win where everything around says so, as with pydensecrf's clip."""
    _, image, labels, noisy = two_regions()
    unary = unary_from_probs(np.eye(3)[noisy])  # label 2 is nowhere
    q = mean_field(unary, image, CRFParams(bilateral_weight=30), engine=name)
    assert np.isfinite(q).all()
    assert far(q.sum(-1), 1) < 1e-5
    assert q[..., 2].max() < 1e-3
    assert (q.argmax(-1) == labels).mean() > 0.95 > (noisy == labels).mean()


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")
def test_as_many_threads_as_asked_for():
    for asked in (1, 3):
        together = threading.Barrier(asked, timeout=20)

        def work(start, together=together):
            together.wait()
            return threading.get_ident()

        with compiled.Crew(asked) as crew:
            assert len(set(crew.run(work, [(i,) for i in range(asked)]))) == asked
            assert len(crew.ranges(100)) == asked
    assert FastMeanField(np.zeros((40, 30, 3)), threads=3)._field.threads == 3


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")
def test_threads_change_only_last_digits_and_the_same_number_nothing():
    unary, image, _ = three_regions((45, 61), noise=20)
    one, again, three, many = (mean_field(unary, image, threads=n, engine="numba") for n in (1, 1, 3, 100))
    assert np.array_equal(one, again)
    assert far(one, three) < 1e-5
    assert far(one, many) < 1e-5


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")
def test_several_callers_at_once():
    unary, image, _ = three_regions((45, 61), noise=20)
    field = FastMeanField(image, threads=2, engine="numba")
    alone = field(unary)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(alone, other) for other in pool.map(field, [unary] * 8))


@pytest.mark.parametrize("name", [*LATTICES, "exact"])
def test_a_warm_start_goes_on_where_it_stopped(name):
    unary, image, _ = three_regions((33, 47), noise=20)
    field = FastMeanField(image, CRFParams(iterations=6), engine=name)
    half = field(unary, iterations=3)
    kept = half.copy()
    assert far(field(unary, initial=half, iterations=3), field(unary)) < 1e-4
    assert far(half, field(unary)) > 1e-3
    assert np.array_equal(half, kept)


@pytest.mark.parametrize("name", [*LATTICES, "exact"])
def test_arguments_stay_as_they_are_and_may_be_read_only(name):
    unary, image, _ = three_regions((33, 47))
    before = unary.copy(), image.copy()
    for array in (unary, image):
        array.setflags(write=False)
    q = mean_field(unary, image, engine=name)
    assert np.array_equal(unary, before[0])
    assert np.array_equal(image, before[1])
    strided = np.repeat(unary, 2, axis=1)[:, ::2].astype(np.float64)
    assert far(mean_field(strided, image, engine=name), q) < 1e-6


def test_a_batch_is_each_for_itself():
    cases = [three_regions((9, 13), seed=seed) for seed in (0, 1)]
    unaries, images = np.stack([c[0] for c in cases]), np.stack([c[1] for c in cases])
    batch = mean_field_batch(unaries, images)
    for got, unary, image in zip(batch, unaries, images, strict=True):
        assert np.array_equal(got, mean_field(unary, image))
    with pytest.raises(ValueError, match="equally many"):
        mean_field_batch(unaries, images[:1])
    with pytest.raises(ValueError, match="one entry for each of 2"):
        mean_field_batch(unaries, images, initial=batch[:1])


def test_grey_images():
    unary, image, _ = three_regions((9, 13), channels=1)
    assert np.array_equal(mean_field(unary, image[..., 0]), mean_field(unary, image))


@pytest.mark.parametrize("name", [*LATTICES, "exact"])
def test_bad_input_is_refused_by_name(name):
    unary, image, _ = three_regions((9, 13))
    nan = unary.copy()
    nan[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="1 of 351 values are NaN"):
        mean_field(nan, image, engine=name)
    both = unary.copy()
    both[0, 0, :2] = np.inf, -np.inf
    with pytest.raises(ValueError, match="2 of 351 values are NaN"):
        mean_field(both, image, engine=name)
    for wrong in (unary.transpose(2, 0, 1), unary[:-1]):
        with pytest.raises(ValueError, match="labels last"):
            mean_field(wrong, image, engine=name)
    with pytest.raises(ValueError, match="`unary`"):
        mean_field(unary[..., :0], image, engine=name)
    with pytest.raises(ValueError, match="`image`"):
        mean_field(unary, image[None], engine=name)
    with pytest.raises(ValueError, match="`image` must be finite"):
        mean_field(unary, np.full(image.shape, np.nan), engine=name)
    with pytest.raises(ValueError, match="`initial`"):
        mean_field(unary, image, initial=unary[:-1], engine=name)
    with pytest.raises(ValueError, match="`initial`"):
        mean_field(unary, image, initial=np.zeros_like(unary), engine=name)
    with pytest.raises(ValueError, match="2 widths"):
        mean_field(unary, image, CRFParams(theta_beta=(3, 4)), engine=name)
    with pytest.raises(ValueError, match="has 3 labels"):
        mean_field(unary, image, CRFParams(compat=np.eye(4)), engine=name)


def test_bad_settings_of_the_engine():
    _, image, _ = three_regions((9, 13))
    with pytest.raises(ValueError, match="`engine`"):
        FastMeanField(image, engine="gpu")
    with pytest.raises(ValueError, match="`threads`"):
        FastMeanField(image, threads=0)


def test_without_numba_the_user_is_told(monkeypatch):
    monkeypatch.setattr(engine, "available_engine", lambda: "scipy")
    unary, image, _ = three_regions((33, 47))
    with pytest.warns(RuntimeWarning, match="numba is not installed"):
        field = FastMeanField(image)
    assert field.engine == "scipy"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert far(field(unary), mean_field(unary, image, engine="scipy")) == 0


def test_numba_that_cannot_be_imported_is_named(monkeypatch):
    """numba refuses a NumPy newer than it knows, by ImportError."""

    def refuse():
        raise ImportError("Numba needs NumPy 2.3 or less. Got NumPy 2.9.\nmore")

    monkeypatch.setattr(compiled, "load_kernels", refuse)
    monkeypatch.setattr(engine, "available_engine", lambda: "numba")
    unary, image, _ = three_regions((33, 47))
    with pytest.warns(
        RuntimeWarning, match=r"^numba cannot be imported \(Numba needs NumPy 2.3 or less.*slower"
    ) as told:
        assert FastMeanField(image).engine == "scipy"
    assert "\n" not in str(told[0].message)
    with pytest.raises(ImportError, match=r"2\.3 or less"):
        mean_field(unary, image, engine="numba")


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")
def test_compiled_loops_are_looked_for_where_they_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("VISIONKIT_CACHE", str(tmp_path))
    assert not must_compile()  # this process has them
    monkeypatch.setattr(compiled, "KERNELS", ("visionkit.crf.other",))
    assert must_compile()
    place = compiled._kept() / "crf_0123"
    place.mkdir(parents=True)
    (place / "kernels.update-206.py311.1.nbc").touch()
    assert not must_compile()
    monkeypatch.setattr(compiled, "SOURCES", ("kernels.py",))  # other sources, another folder
    assert must_compile()
    monkeypatch.setattr(compiled, "_kept", lambda: None)
    assert must_compile()


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")
def test_a_damaged_or_full_disk_only_costs_a_compilation():
    from visionkit.crf.jitting import _Forgiving

    class Broken:
        cache_path = "here"
        flushed = 0

        def load_overload(self, sig, target_context):
            raise EOFError

        def save_overload(self, sig, data):
            raise OSError(28, "No space left on device")

        def flush(self):
            self.flushed += 1
            raise OSError(28, "No space left on device")

    cache = _Forgiving(Broken())
    assert cache.load_overload("signature", "context") is None
    cache.save_overload("signature", "data")
    assert cache.flushed == 1
    assert cache.cache_path == "here"
    assert type(compiled.load_kernels()[0].update._cache).__name__ in ("_Forgiving", "NullCache")


@pytest.mark.slow  # some seconds and 0.8 GB
@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")
def test_crf6_memory_at_1080p():
    """All pairs would be 2^42 values: what N^2 memory costs is seen at once."""
    code = (
        "import resource, numpy as np\n"
        "from visionkit.crf import CRFParams, mean_field\n"
        "unary = np.random.default_rng(0).random((1080, 1920, 21), np.float32)\n"
        "y, x = np.mgrid[:1080, :1920]\n"
        "image = np.stack([x // 8, y // 5, (x + y) // 12], -1).astype(np.uint8)\n"
        "mean_field(unary, image, CRFParams(iterations=2), threads=2)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(run.stdout) * unit < 2**30


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")
def test_crf6_a_voc_image_takes_a_moment():
    """375 x 500, 21 labels, 10 iterations: 0.2 s on two quiet cores (benchmarks); the bound only catches a toy."""
    rng = np.random.default_rng(0)
    unary = rng.random((375, 500, 21), np.float32)
    _, image, _ = three_regions((375, 500), noise=10)
    field = FastMeanField(image, CRFParams(iterations=1))
    field(unary)
    start = time.process_time()
    FastMeanField(image, CRFParams(iterations=10))(unary)
    assert time.process_time() - start < 2.0
