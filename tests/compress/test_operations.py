"""Operations and their types, islands of float arithmetic, names of layers, packed sizes."""

from __future__ import annotations

import zlib

import pytest

from visionkit.compress.operations import (
    OperationRow,
    float_islands,
    float_operations,
    layer_of,
    layers_of,
    list_operations,
    zipped_size,
)
from visionkit.errors import ModelError


def row(index: int, kind: str, reads: tuple[int, ...], writes: tuple[int, ...], types: str) -> OperationRow:
    """An operation whose inputs and outputs have the types `in>out`."""
    before, after = types.split(">")
    return OperationRow("raw", index, kind, f"t{writes[0]}", "", (before,) * len(reads), (after,), reads, writes,
                        frozenset())  # fmt: skip


def chain(*kinds: str) -> list[OperationRow]:
    """Operations in a line; those with `f` compute in float, the crossings are put between them."""
    rows = []
    for index, entry in enumerate(kinds):
        name, types = entry.split(":")
        rows.append(row(index, name, (index,), (index + 1,), types))
    return rows


def test_float_between_integers_is_an_island():
    rows = chain(
        "QUANTIZE:float32>int8", "CONV_2D:int8>int8", "DEQUANTIZE:int8>float32", "TILE:float32>float32",
        "RESHAPE:float32>float32", "QUANTIZE:float32>int8", "CONV_2D:int8>int8", "DEQUANTIZE:int8>float32",
    )  # fmt: skip
    assert [[one.kind for one in island] for island in float_islands(rows)] == [["TILE", "RESHAPE"]]


def test_float_at_the_ends_is_none():
    rows = chain(
        "CAST:uint8>float32", "MUL:float32>float32", "QUANTIZE:float32>int8", "CONV_2D:int8>int8",
        "DEQUANTIZE:int8>float32", "SOFTMAX:float32>float32",
    )  # fmt: skip
    assert float_islands(rows) == []
    assert [one.kind for one in float_operations(rows)] == ["CAST", "MUL", "SOFTMAX"]


def test_two_islands_are_told_apart():
    rows = [
        row(0, "CONV_2D", (0,), (1,), "int8>int8"),
        row(1, "DEQUANTIZE", (1,), (2,), "int8>float32"),
        row(2, "FLOOR", (2,), (3,), "float32>float32"),
        row(3, "EXP", (2,), (4,), "float32>float32"),
        row(4, "QUANTIZE", (3,), (5,), "float32>int8"),
        row(5, "QUANTIZE", (4,), (6,), "float32>int8"),
        row(6, "ADD", (5, 6), (7,), "int8>int8"),
    ]
    assert sorted(len(island) for island in float_islands(rows)) in ([1, 1], [2])
    apart = [one for one in rows if one.kind != "EXP"]
    assert [[one.kind for one in island] for island in float_islands(apart)] == [["FLOOR"]]


def test_a_class_number_in_a_byte_is_no_quantized_operation():
    rows = chain("CONV_2D:int8>int8", "DEQUANTIZE:int8>float32", "ARG_MAX:float32>int64", "CAST:int64>uint8")
    assert float_islands(rows) == []


def test_an_integer_operation_s_float_constants_do_not_count():
    one = OperationRow("raw", 0, "CONV_2D", "t", "", ("int8", "float32"), ("int8",), (0, 1), (2,), frozenset({1}))
    assert not one.is_float
    assert one.types == "int8"


@pytest.mark.parametrize(
    ("name", "layer", "layers"),
    [
        ("net_1/layer1.0.conv1_1/convolution", "layer1.0.conv1", ["layer1.0.conv1"]),
        ("net/a.relu_1/Relu;net/a.bn_1/batchnorm/add_1;net/a.conv_1/convolution;net/a.bn_1/batchnorm/sub", "a.conv",
         ["a.relu", "a.bn", "a.conv"]),
        ("resnet_1/avgpool_1/Mean", "avgpool", ["avgpool"]),
        ("StatefulPartitionedCall:0", "", []),
        ("pool_1/Max", "pool", ["pool"]),
    ],
)  # fmt: skip
def test_the_layer_is_told_by_the_tensor_s_name(name, layer, layers):
    assert layer_of(name) == layer
    assert layers_of(name) == layers


def test_a_file_s_operations_are_listed_by_signature():
    from tests.compress.networks import as_tflite, residual_net

    content = as_tflite(residual_net())
    rows = list_operations(content, "serving_default")
    assert [one.kind for one in rows][:2] == ["CONV_2D", "HARD_SWISH"]
    assert [one.layer for one in rows if one.kind == "DEPTHWISE_CONV_2D"] == ["block.depth"]
    assert {one.types for one in rows} == {"float32"}
    with pytest.raises(ModelError, match="serving_default"):
        list_operations(content, "raw")


def test_a_packed_size_is_what_deflate_makes(tmp_path):
    (tmp_path / "zeros").write_bytes(b"\0" * 10_000)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "text").write_bytes(b"abc" * 500)
    wanted = len(zlib.compress(b"\0" * 10_000)) + len(zlib.compress(b"abc" * 500))
    assert zipped_size(tmp_path) == wanted
    assert zipped_size(tmp_path / "zeros") == zipped_size(b"\0" * 10_000) < 100
