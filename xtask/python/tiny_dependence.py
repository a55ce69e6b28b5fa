"""Tiny models whose rows or columns depend on one another in ways that are easily missed, and shapes that
are easily cut wrongly. Importing this registers them."""

import numpy as np

from tiny_graph import BOOL, F32, I64, makes, model, node, value


@makes("running_sum.onnx")
def running_sum():
    """`y` = the sum of `x`'s rows up to each, f32 [batch, 4]: rows behind do not matter, rows before do."""
    return model(
        "running_sum",
        [node("CumSum", "x axis", "y")],
        [value("x", F32, ["batch", 4])],
        [value("y", F32, ["batch", 4])],
        {"axis": np.array(0, np.int64)},
    )


@makes("sentinel_mean.onnx")
def sentinel_mean():
    """`y` f32 [batch, 8] = `x` f32 [batch, 4] less its mean over the batch, beside 4 columns of -1e9: rows
    depend on one another, and a few large numbers hide it."""
    return model(
        "sentinel_mean",
        [
            node("ReduceMean", "x", "mean", axes=[0], keepdims=1),
            node("Sub", "x mean", "centred"),
            node("Mul", "x zero", "nothing"),
            node("Add", "nothing sentinel", "sentinels"),
            node("Concat", "centred sentinels", "y", axis=1),
        ],
        [value("x", F32, ["batch", 4])],
        [value("y", F32, ["batch", 8])],
        {"zero": np.zeros(4, np.float32), "sentinel": np.full(4, -1e9, np.float32)},
        opset=13,
    )


@makes("integer_sum.onnx")
def integer_sum():
    """`y` i64 [batch, 3] = `x` + its sum over the batch + 30000: rows depend on one another by little."""
    return model(
        "integer_sum",
        [
            node("ReduceSum", "x axes", "sum", keepdims=1),
            node("Add", "x sum", "more"),
            node("Add", "more base", "y"),
        ],
        [value("x", I64, ["batch", 3])],
        [value("y", I64, ["batch", 3])],
        {"axes": np.array([0], np.int64), "base": np.array(30000, np.int64)},
        opset=13,
    )


@makes("root_mean.onnx")
def root_mean():
    """`y` f32 [batch, 8] = the roots of `x` less their mean over everything: no number at all for an `x` with
    something negative in it."""
    return model(
        "root_mean",
        [
            node("Sqrt", "x", "roots"),
            node("ReduceMean", "roots", "mean", axes=[0, 1], keepdims=1),
            node("Sub", "roots mean", "y"),
        ],
        [value("x", F32, ["batch", 8])],
        [value("y", F32, ["batch", 8])],
        opset=13,
    )


@makes("normalised.onnx")
def normalised():
    """`y` = `x` over the largest magnitude in it, f32 [batch, 4]: only rows that are larger matter to others."""
    return model(
        "normalised",
        [
            node("Abs", "x", "magnitudes"),
            node("ReduceMax", "magnitudes", "largest", keepdims=0),
            node("Div", "x largest", "y"),
        ],
        [value("x", F32, ["batch", 4])],
        [value("y", F32, ["batch", 4])],
        opset=13,
    )


@makes("half_root.onnx")
def half_root():
    """`y` f32 [batch, 8]: `x` f32 [batch, 4], and `x` times the root of the least element of all, which is no
    number where something is negative."""
    return model(
        "half_root",
        [
            node("ReduceMin", "x", "least", axes=[0, 1], keepdims=1),
            node("Sqrt", "least", "root"),
            node("Mul", "x root", "product"),
            node("Concat", "x product", "y", axis=1),
        ],
        [value("x", F32, ["batch", 4])],
        [value("y", F32, ["batch", 8])],
        opset=13,
    )


@makes("parity.onnx")
def parity():
    """`y` = `x`, and 1 more in every second row, f32 [batch, 4]."""
    return model(
        "parity",
        [
            node("Shape", "x", "shape"),
            node("Gather", "shape zero", "rows"),
            node("Range", "zero rows one", "places"),
            node("Mod", "places two", "odd"),
            node("Cast", "odd", "more", to=F32),
            node("Unsqueeze", "more last", "column"),
            node("Add", "x column", "y"),
        ],
        [value("x", F32, ["batch", 4])],
        [value("y", F32, ["batch", 4])],
        {
            "zero": np.array(0, np.int64),
            "one": np.array(1, np.int64),
            "two": np.array(2, np.int64),
            "last": np.array([1], np.int64),
        },
        opset=13,
    )


@makes("longest.onnx")
def longest():
    """`y` = `x` f32 [batch, sequence, 4] times a row's share of the longest row's ones in `attention_mask` i64
    [batch, sequence]: rows depend on how long others are."""
    return model(
        "longest",
        [
            node("Cast", "attention_mask", "ones", to=F32),
            node("ReduceSum", "ones last", "lengths", keepdims=1),
            node("ReduceMax", "lengths", "longest", axes=[0], keepdims=1),
            node("Div", "lengths longest", "shares"),
            node("Unsqueeze", "shares deepest", "factors"),
            node("Mul", "x factors", "y"),
        ],
        [value("x", F32, ["batch", "sequence", 4]), value("attention_mask", I64, ["batch", "sequence"])],
        [value("y", F32, ["batch", "sequence", 4])],
        {"last": np.array([1], np.int64), "deepest": np.array([2], np.int64)},
        opset=13,
    )


@makes("any.onnx")
def any_true():
    """`y` f32 [batch, 4] = `x` bool [batch, 4] as numbers, and 1 more if anything in it is true."""
    return model(
        "any",
        [
            node("Cast", "x", "numbers", to=F32),
            node("ReduceMax", "numbers", "any", keepdims=0),
            node("Add", "numbers any", "y"),
        ],
        [value("x", BOOL, ["batch", 4])],
        [value("y", F32, ["batch", 4])],
        opset=13,
    )


@makes("similarity.onnx")
def similarity():
    """`y` f32 [batch, batch] = `x` · `x` transposed, `x` f32 [batch, 3]: the batch on two axes of one output."""
    return model(
        "similarity",
        [node("Transpose", "x", "turned", perm=[1, 0]), node("MatMul", "x turned", "y")],
        [value("x", F32, ["batch", 3])],
        [value("y", F32, ["batch", "batch"])],
    )


@makes("rounded_up.onnx")
def rounded_up():
    """Every second column of `x` f32 [batch, width], each twice: `y` f32 [batch, ?] has `width` columns, rounded
    up to an even number."""
    return model(
        "rounded_up",
        [
            node("Slice", "x start end axis step", "half"),
            node("Unsqueeze", "half last", "tall"),
            node("Concat", "tall tall", "pairs", axis=2),
            node("Reshape", "pairs flat", "y"),
        ],
        [value("x", F32, ["batch", "width"])],
        [value("y", F32, ["batch", "rounded"])],
        {
            "start": np.array([0], np.int64),
            "end": np.array([2**31 - 1], np.int64),
            "axis": np.array([1], np.int64),
            "step": np.array([2], np.int64),
            "last": np.array([2], np.int64),
            "flat": np.array([0, -1], np.int64),
        },
        opset=13,
    )


@makes("positions.onnx")
def positions():
    """`y` f32 [batch, width] = `x` + the first entries of a table of 6: no `width` above 6 is possible."""
    return model(
        "positions",
        [
            node("Shape", "x", "shape"),
            node("Gather", "shape one", "width", axis=0),
            node("Slice", "table zero width zero", "used"),
            node("Add", "x used", "y"),
        ],
        [value("x", F32, ["batch", "width"])],
        [value("y", F32, ["batch", "width"])],
        {
            "one": np.array([1], np.int64),
            "zero": np.array([0], np.int64),
            "table": np.arange(6, dtype=np.float32),
        },
        opset=13,
    )


@makes("pairs.onnx")
def pairs():
    """`y` f32 [?, ?] = `x` f32 [?, ?], two axes without a name."""
    return model(
        "pairs",
        [node("Identity", "x", "y")],
        [value("x", F32, [None, None])],
        [value("y", F32, [None, None])],
    )


@makes("lookup.onnx")
def lookup():
    """`index` i64 [batch, width] looked up in a table of 4 rows: `y` f32 [batch, width, 2]."""
    return model(
        "lookup",
        [node("Gather", "table index", "y", axis=0)],
        [value("index", I64, ["batch", "width"])],
        [value("y", F32, ["batch", "width", 2])],
        {"table": np.arange(8, dtype=np.float32).reshape(4, 2)},
    )


@makes("memory.onnx")
def memory():
    """`past` f32 [batch, past, 2] before `x` f32 [batch, 1, 2], summed over both: `y` f32 [batch, 2]. A `past` of 0
    is the first step of a decoder."""
    return model(
        "memory",
        [
            node("Concat", "past x", "all", axis=1),
            node("ReduceSum", "all axes", "y", keepdims=0),
        ],
        [value("past", F32, ["batch", "past", 2]), value("x", F32, ["batch", 1, 2])],
        [value("y", F32, ["batch", 2])],
        {"axes": np.array([1], np.int64)},
        opset=13,
    )
