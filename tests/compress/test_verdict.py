"""The verdict on made numbers: what ships, what does not, and what cannot be told yet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from visionkit.compress.verdict import Bounds, ClassChange, Interval, Timing, VariantFacts, decide, judge

FLOAT = VariantFacts(
    "float32",
    metric=Interval(0.97, 0.95, 0.98),
    drop=Interval(0, 0, 0),
    images=1000,
    size=4_000_000,
    zipped=3_700_000,
    timings=(Timing(1, 10.0, 12.0), Timing(2, 6.0, 8.0)),
)
INT8 = VariantFacts(
    "int8",
    metric=Interval(0.968, 0.95, 0.98),
    drop=Interval(0.2, -0.1, 0.5),
    images=1000,
    agreement=0.99,
    frames=200,
    size=1_050_000,
    zipped=900_000,
    timings=(Timing(1, 5.0, 6.0), Timing(2, 3.0, 4.0)),
)


def slugs(ruling):
    return [reason.slug for reason in ruling.reasons]


def lost(points, low, high, *, name="7", count=100):
    return ClassChange(name, count, 0.95, 0.95 - points / 100, Interval(points, low, high))


def test_a_good_variant_ships_and_the_sentence_says_why():
    decision = decide(FLOAT, [INT8], Bounds(), "top-1")
    assert decision.ship == "int8"
    # 4.0 / 1.05 = 3.8; the better of the threads: 6 / 3 = 2
    assert decision.sentence == (
        "Ship int8: 96.8 % top-1, 0.2 points below float (95 % interval of the loss −0.1 to 0.5), 1.05 MB "
        "(3.8 times smaller; 0.90 MB zipped), 3 ms an image (2.0 times faster)."
    )


@pytest.mark.parametrize(
    ("change", "slug", "words"),
    [
        ({"drop": Interval(3.0, 2.0, 4.1)}, "drop", "it loses 3.0 points of top-1 (95 % interval of the loss 2.0 to"),
        ({"drop": Interval(1.5, 0.2, 2.9)}, "drop", "though on 1000 images that may be chance"),
        ({"classes": (lost(0, 0, 0), lost(60, 45, 75))}, "class", "it ruins a class: '7' falls from 95% to 35%"),
        ({"agreement": 0.8}, "agreement", "on 200 frames without labels it agrees with float on 80.0% only"),
        ({"faults": ("the images are normalised twice",)}, "calibration", "normalised twice"),
        ({"faults": ("BGR",), "failed": "BGR"}, "calibration", "its calibration is at fault: BGR"),
        ({"failed": "ai-edge-quantizer raised"}, "not-built", "could not be built: ai-edge-quantizer raised"),
        ({"drop": None}, "not-measured", "could not be measured"),
        (
            {"size": 4_000_000, "zipped": 3_700_000, "timings": (Timing(1, 10, 12), Timing(2, 6, 8))},
            "no-gain",
            "neither smaller nor faster",
        ),
    ],
)
def test_each_fault_forbids_and_says_so(change, slug, words):
    ruling = judge(replace(INT8, **change), FLOAT, Bounds(), "top-1")
    assert ruling.verdict == "dont"
    assert slugs(ruling) == [slug]
    assert words in ruling.reasons[0].text
    assert judge(INT8, FLOAT, Bounds(), "top-1").verdict == "ship"  # the control


def test_too_slow_is_judged_at_the_best_number_of_threads():
    assert judge(INT8, FLOAT, Bounds(latency_ms=3.0)).verdict == "ship"
    ruling = judge(INT8, FLOAT, Bounds(latency_ms=2.9))
    assert slugs(ruling) == ["slow"]
    assert "3 ms with 2 threads, more than the 2.9 allowed" in ruling.reasons[0].text


def test_a_class_that_a_few_examples_accuse_is_not_ruined():
    # one of three wrong is 33 points, but drawing the three again shows a loss of 0 as well
    assert judge(replace(INT8, classes=(lost(33, 0, 100, count=3),)), FLOAT, Bounds()).verdict == "ship"


def test_several_ruined_classes_are_told_worst_first_and_cut():
    classes = tuple(lost(20 + k, 15, 40, name=f"c{k}") for k in range(5))
    text = judge(replace(INT8, classes=classes), FLOAT, Bounds()).reasons[0].text
    assert text == (
        "it ruins 5 classes: 'c4' falls from 95% to 71%, 'c3' falls from 95% to 72%, 'c2' falls from 95% to 73% and 2 "
        "more"
    )


def test_an_interval_too_wide_says_how_many_more_images_would_tell():
    # 0.4 lost, at most 1.6: 1.2 wide upwards, 0.6 allowed, so (1.2 / 0.6)^2 = 4 times as many images
    ruling = judge(replace(INT8, drop=Interval(0.4, 0.0, 1.6), images=250), FLOAT, Bounds())
    assert ruling.verdict == "unsure"
    assert ruling.more_images == 750
    assert "about 750 more would" in ruling.reasons[0].text
    decision = decide(FLOAT, [replace(INT8, drop=Interval(0.4, 0.0, 1.6), images=250)], Bounds())
    assert decision.ship is None
    assert decision.sentence.startswith("Do not ship int8 yet, because 250 images cannot tell whether it stays within")


def test_no_wrong_answer_among_a_few_images_proves_nothing():
    same = replace(INT8, drop=Interval(0, 0, 0))
    assert judge(replace(same, images=40), FLOAT, Bounds()).more_images == 60  # one in 100 is a point
    assert judge(replace(same, images=100), FLOAT, Bounds()).verdict == "ship"
    assert judge(replace(same, images=40), FLOAT, Bounds(max_drop=2.5)).verdict == "ship"
    assert judge(replace(same, images=40, counted=400), FLOAT, Bounds()).verdict == "ship"  # ten objects on each
    assert judge(replace(same, images=10, counted=20), FLOAT, Bounds()).more_images == 40


def test_where_nothing_changed_no_interval_is_told_but_that_the_images_are_few():
    same = replace(INT8, drop=Interval(0, 0, 0), images=40)
    assert judge(same, FLOAT, Bounds(), "top-1").reasons[0].text == (
        "on 40 images nothing changed, but 40 are too few to tell 1 point of top-1: about 60 more would"
    )
    objects = judge(replace(same, images=10, counted=20), FLOAT, Bounds(), "mAP50").reasons[0].text
    assert objects == (
        "on 10 images with 20 objects nothing changed, but 10 images are too few to tell 1 point of mAP50: about 40 "
        "more would"
    )


def test_a_narrow_interval_is_enough_whatever_the_number_of_images():
    """A detector's 72 images may hold a thousand objects; the interval knows."""
    assert judge(replace(INT8, drop=Interval(0.1, -0.4, 0.5), images=72), FLOAT, Bounds()).verdict == "ship"


def test_what_counting_cannot_tell_is_not_promised():
    ruling = judge(replace(INT8, drop=Interval(1.0, 0.0, 2.0)), FLOAT, Bounds())
    assert ruling.verdict == "unsure"
    assert ruling.more_images is None


def test_of_several_the_fastest_ships_then_the_smallest_then_the_best():
    half = replace(INT8, kind="float16", size=2_000_000, timings=FLOAT.timings)
    same_speed = replace(INT8, kind="mixed", size=1_500_000)
    qat = replace(INT8, kind="qat", size=1_060_000, drop=Interval(0.1, -0.2, 0.4))  # as small as int8, and better
    assert decide(FLOAT, [half, INT8], Bounds()).ship == "int8"
    assert decide(FLOAT, [half, same_speed, INT8], Bounds()).ship == "int8"
    assert decide(FLOAT, [INT8, qat], Bounds()).ship == "qat"
    assert decide(FLOAT, [half, replace(INT8, drop=Interval(5, 4, 6))], Bounds()).ship == "float16"


def test_a_slower_one_does_not_win_by_its_size():
    def timed(kind, ms, size=1_000_000):
        return replace(INT8, kind=kind, size=size, timings=(Timing(1, ms, ms),))

    # 6.4 and 5.9 ms are alike, and so the smaller would win; but float takes 6
    assert decide(FLOAT, [timed("slower", 6.4), timed("faster", 5.9, 2_000_000)], Bounds()).ship == "faster"
    assert decide(FLOAT, [timed("alike", 6.2), timed("faster", 5.9, 2_000_000)], Bounds()).ship == "alike"


def test_smaller_but_slower_is_said_and_a_faster_one_that_is_not_proven_is_named():
    slow = replace(INT8, kind="dynamic", timings=(Timing(1, 13.8, 15),))
    doubtful = replace(INT8, drop=Interval(0, 0, 0), images=40)
    assert decide(FLOAT, [slow], Bounds(), "top-1").sentence == (
        "Ship dynamic, smaller but slower: 96.8 % top-1, 0.2 points below float (95 % interval of the loss −0.1 to "
        "0.5), 1.05 MB (3.8 times smaller; 0.90 MB zipped), 13.8 ms an image (2.3 times slower)."
    )
    decision = decide(FLOAT, [slow, doubtful], Bounds(), "top-1")
    assert decision.ship == "dynamic"
    assert decision.sentence.endswith(
        "(2.3 times slower). int8 is faster, but on 40 images nothing changed, but 40 are too few to tell 1 point of "
        "top-1: about 60 more would."
    )
    assert "slower" not in decide(FLOAT, [slow, INT8], Bounds(), "top-1").sentence


def test_none_good_names_the_nearest():
    wrong = replace(INT8, drop=Interval(5, 4, 6))
    slow = replace(INT8, kind="dynamic", timings=(Timing(1, 30, 40),))
    decision = decide(FLOAT, [wrong, slow], Bounds(latency_ms=5))
    assert decision.sentence == (
        "Do not ship any of the 2 variants: dynamic comes nearest, but it takes 30 ms with 1 thread, more than the 5 "
        "allowed. Keep float32."
    )
    assert decide(FLOAT, [wrong], Bounds()).sentence.startswith("Do not ship int8, because it loses 5.0 points")
    assert decide(FLOAT, [], Bounds()).ship is None


def test_every_reason_is_told_the_gravest_first():
    bad = replace(INT8, faults=("BGR for RGB",), drop=Interval(9, 8, 10), agreement=0.5)
    assert slugs(judge(bad, FLOAT, Bounds())) == ["calibration", "drop", "agreement"]


def test_better_than_float_is_said():
    better = replace(INT8, drop=Interval(-0.4, -0.9, 0.0))
    assert "0.4 points above float" in decide(FLOAT, [better], Bounds()).sentence
