"""Writes the tiny models that the tests run, or checks that they are what this script writes.

    python3 make_tiny_models.py --out tests/models [--check]

Each function below marked with `@makes` makes one file; its docstring is the file's row in the
README beside the models, which is written too. Nothing depends on the clock, the machine or
chance, so the same onnx version gives the same bytes. With --check nothing is written: every file
that differs, is missing or is one too many is named, and the status is 1 if there is any.
"""

import argparse
import json
import string
from pathlib import Path

import numpy as np
from onnx import TensorProto
from onnx.external_data_helper import set_external_data

from encoder_graph import IR_VERSION, OPSET, EncoderConfig, build_encoder, weight_shapes
from files import fail, write_atomically
from make_gguf import file_of, sizes_of, tensors_of
import tiny_dependence  # registers its models
import tiny_modern_bert  # registers its models
from tiny_graph import (
    F16,
    F32,
    F64,
    BF16,
    I32,
    I64,
    U8,
    BOOL,
    MAKERS,
    ROWS,
    makes,
    numbers,
    value,
    model,
    node,
)


@makes("identity.onnx")
def identity():
    """`y` = `x`, f32 [batch, 4]."""
    return model("identity", [node("Identity", "x", "y")], [value("x", F32, ROWS)], [value("y", F32, ROWS)])


@makes("add_one.onnx")
def add_one():
    """`y` = `x` + 1, f32 [batch, 4]; a single node."""
    return model(
        "add_one",
        [node("Add", "x one", "y")],
        [value("x", F32, ROWS)],
        [value("y", F32, ROWS)],
        {"one": np.float32(1)},
    )


def dense_parts(name):
    """Two layers with a Relu between, one as Gemm and one as MatMul and Add."""
    nodes = [
        node("Gemm", "x first.weight first.bias", "first"),
        node("Relu", "first", "bent"),
        node("MatMul", "bent second.weight", "second"),
        node("Add", "second second.bias", "y"),
    ]
    weights = {
        "first.weight": numbers(f"{name}.first.weight", 16, 32),
        "first.bias": numbers(f"{name}.first.bias", 32),
        "second.weight": numbers(f"{name}.second.weight", 32, 4),
        "second.bias": numbers(f"{name}.second.bias", 4),
    }
    return nodes, [value("x", F32, ["batch", 16])], [value("y", F32, ROWS)], weights


@makes("dense.onnx")
def dense():
    """`x` f32 [batch, 16] through two dense layers (Gemm; MatMul and Add) with a Relu between to
    `y` f32 [batch, 4]."""
    return model("dense", *dense_parts("dense"))


@makes("external.onnx")
def external():
    """The network of `dense.onnx` with other weights, all of them as external data in
    `external.bin`."""
    made = model("external", *dense_parts("external"))
    blob = b""
    for tensor in made.graph.initializer:
        set_external_data(tensor, "external.bin", offset=len(blob), length=len(tensor.raw_data))
        blob += tensor.raw_data
        tensor.ClearField("raw_data")
    return {"external.onnx": made.SerializeToString(deterministic=True), "external.bin": blob}


@makes("encoder.onnx")
def encoder():
    """A text encoder like MiniLM with the same input names, types and symbols, from the same code:
    `input_ids`, `attention_mask`, `token_type_ids` i64 [batch, sequence] to `last_hidden_state`
    f32 [batch, sequence, 16]. 2 layers, 2 heads, vocabulary 128, at most 64 positions, 2 token
    types."""
    return build_encoder(*encoder_weights(), name="encoder")


def encoder_weights():
    config = EncoderConfig(layers=2, heads=2, epsilon=1e-12)
    shapes = weight_shapes(config, vocabulary=128, positions=64, types=2, hidden=16, intermediate=32)
    weights = {}
    for name, shape in shapes.items():
        weights[name] = numbers(f"encoder.{name}", *shape) * np.float32(0.5)
        if name.endswith("LayerNorm.weight"):
            weights[name] += np.float32(1)
    return config, weights


@makes("encoder.gguf")
def gguf_encoder():
    """The weights of `encoder.onnx` as a GGUF file of the architecture `bert`, f32, without a
    tokenizer: `input_ids`, `attention_mask` to `last_hidden_state`; every token is of type 0."""
    config, weights = encoder_weights()
    return file_of(sizes_of(config, weights), list(tensors_of(config, weights)))


@makes("tiny_tokenizer.json")
def tiny_tokenizer():
    """A WordPiece tokenizer (lower case, BERT rules, `[CLS]` text `[SEP]`) whose 128 entries fit
    `encoder.onnx`: special tokens (`[PAD]` 0, `[UNK]` 1, `[CLS]` 2, `[SEP]` 3, `[MASK]` 4), letters
    and digits alone and as continuations, punctuation, a few words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    single = string.ascii_lowercase + string.digits
    words = "the a of and is in to shape batch row tensor model text pad cache graph input output token"
    pieces = "size length symbol value yard rust code run test ##s ##ing ##ed ##er ##ly ##tion ##able"
    tokens = special + list(single) + [f"##{sign}" for sign in single] + list(".,:;()[]_-=+*/!?'\"")
    tokens += [token for token in (words + " " + pieces).split() if token not in tokens]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != 128:
        fail(f"the tiny vocabulary has {len(vocabulary)} different entries, not 128")

    def place(name, kind):
        return {kind: {"id": name, "type_id": 0}}

    def second(name, kind):
        return {kind: {"id": name, "type_id": 1}}

    first = [place("[CLS]", "SpecialToken"), place("A", "Sequence"), place("[SEP]", "SpecialToken")]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index, token in enumerate(special)
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": first,
            "pair": [*first, second("B", "Sequence"), second("[SEP]", "SpecialToken")],
            "special_tokens": {
                token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]}
                for token in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }
    return json.dumps(tokenizer, indent=1).encode() + b"\n"


def conv_parts():
    """A convolution that keeps a picture's size, a Relu, and the mean over the picture."""
    nodes = [
        node("Conv", "image kernel bias", "raw", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", "raw", "features"),
        node("GlobalAveragePool", "features", "means"),
        node("Flatten", "means", "pooled", axis=1),
    ]
    return nodes, {"kernel": numbers("conv.kernel", 4, 3, 3, 3), "bias": numbers("conv.bias", 4)}


@makes("conv.onnx")
def conv():
    """`image` f32 [batch, 3, height, width] through a 3 × 3 convolution that keeps the size and a
    Relu to `features` f32 [batch, 4, height, width], and their mean over the picture to `pooled`
    f32 [batch, 4]."""
    nodes, weights = conv_parts()
    return model(
        "conv",
        nodes,
        [value("image", F32, ["batch", 3, "height", "width"])],
        [value("pooled", F32, ROWS), value("features", F32, ["batch", 4, "height", "width"])],
        weights,
    )


@makes("picture.onnx")
def picture():
    """`conv.onnx` for pictures of one size, whose rows are odd: `image` f32 [batch, 3, 5, 7] to
    `pooled` f32 [batch, 4] and `features` f32 [batch, 4, 5, 7]."""
    nodes, weights = conv_parts()
    return model(
        "picture",
        nodes,
        [value("image", F32, ["batch", 3, 5, 7])],
        [value("pooled", F32, ROWS), value("features", F32, ["batch", 4, 5, 7])],
        weights,
    )


@makes("many_inputs.onnx")
def many_inputs():
    """190 inputs `in_000` to `in_189`, f32 [batch, 4]; outputs `sum_0` to `sum_3`, f32 [batch, 4],
    are the sums of the inputs 0 to 49, 50 to 99, 100 to 149 and 150 to 189."""
    names = [f"in_{index:03}" for index in range(190)]
    sums = [f"sum_{index}" for index in range(4)]
    return model(
        "many_inputs",
        [node("Sum", " ".join(names[50 * index : 50 * index + 50]), name) for index, name in enumerate(sums)],
        [value(name, F32, ROWS) for name in names],
        [value(name, F32, ROWS) for name in sums],
    )


@makes("many_outputs.onnx")
def many_outputs():
    """`x` f32 [batch, 8] to 12 outputs `y_00` to `y_11`, f32 [batch, 8]: output k is
    (k + 1) × `x` - k."""
    outputs = [f"y_{index:02}" for index in range(12)]
    nodes, weights = [], {}
    for index, name in enumerate(outputs):
        weights[f"{name}.scale"] = np.float32(index + 1)
        weights[f"{name}.shift"] = np.float32(index)
        nodes.append(node("Mul", f"x {name}.scale", f"{name}.scaled"))
        nodes.append(node("Sub", f"{name}.scaled {name}.shift", name))
    wide = ["batch", 8]
    return model(
        "many_outputs",
        nodes,
        [value("x", F32, wide)],
        [value(name, F32, wide) for name in outputs],
        weights,
    )


@makes("chain.onnx")
def chain():
    """`y` f32 [batch, 4] = `x` + 50 / 64, in 100 nodes one after the other, each of which adds or
    multiplies by 1: many small kernels."""
    nodes, before = [], "x"
    for index in range(100):
        after = "y" if index == 99 else f"step_{index:02}"
        nodes.append(node("Add" if index % 2 else "Mul", f"{before} {'little' if index % 2 else 'one'}", after))
        before = after
    weights = {"little": np.float32(1 / 64), "one": np.float32(1)}
    return model("chain", nodes, [value("x", F32, ROWS)], [value("y", F32, ROWS)], weights)


@makes("mixed_types.onnx")
def mixed_types():
    """Five element types, all [batch, 3]: `count` i32, `offset` i64, `flag` bool, `level` u8,
    `weight` f64. `total` i64 = `count` + `offset` + `level`; `inverse` bool = not `flag`; `product`
    f32 = `weight` × `level`."""
    shape = ["batch", 3]
    return model(
        "mixed_types",
        [
            node("Cast", "count", "count.wide", to=I64),
            node("Cast", "level", "level.wide", to=I64),
            node("Add", "count.wide offset", "moved"),
            node("Add", "moved level.wide", "total"),
            node("Not", "flag", "inverse"),
            node("Cast", "weight", "weight.float", to=F32),
            node("Cast", "level", "level.float", to=F32),
            node("Mul", "weight.float level.float", "product"),
        ],
        [
            value("count", I32, shape),
            value("offset", I64, shape),
            value("flag", BOOL, shape),
            value("level", U8, shape),
            value("weight", F64, shape),
        ],
        [value("total", I64, shape), value("inverse", BOOL, shape), value("product", F32, shape)],
    )


@makes("scalars.onnx")
def scalars():
    """Inputs with and without a batch axis: `x` f32 [batch, 4], `scale` f32 of rank 0, `table` f32
    [4, 4]. `y` f32 [batch, 4] = `x` · `table` × `scale`; `table_doubled` f32 [4, 4] depends on
    `table` alone."""
    return model(
        "scalars",
        [
            node("MatMul", "x table", "product"),
            node("Mul", "product scale", "y"),
            node("Add", "table table", "table_doubled"),
        ],
        [value("x", F32, ROWS), value("scale", F32, []), value("table", F32, [4, 4])],
        [value("y", F32, ROWS), value("table_doubled", F32, [4, 4])],
    )


@makes("fixed_leading.onnx")
def fixed_leading():
    """`x` f32 [batch, 4] to `y` f32 [batch, 4] = `x` · P, and P itself as `prototypes` f32 [4, 4]:
    an output whose leading extent looks like a batch of 4 and is none."""
    return model(
        "fixed_leading",
        [node("MatMul", "x stored", "y"), node("Identity", "stored", "prototypes")],
        [value("x", F32, ROWS)],
        [value("y", F32, ROWS), value("prototypes", F32, [4, 4])],
        {"stored": numbers("fixed_leading.stored", 4, 4)},
    )


@makes("batch_mean.onnx")
def batch_mean():
    """`y` = `x` less its mean over the batch, f32 [batch, 4]: rows depend on one another, so
    padding rows change the result."""
    return model(
        "batch_mean",
        [node("ReduceMean", "x", "mean", axes=[0], keepdims=1), node("Sub", "x mean", "y")],
        [value("x", F32, ROWS)],
        [value("y", F32, ROWS)],
    )


@makes("unnamed_dims.onnx")
def unnamed_dims():
    """`y` = relu(`x`), f32 [?, 4]: the leading dimension has neither a value nor a name."""
    return model(
        "unnamed_dims",
        [node("Relu", "x", "y")],
        [value("x", F32, [None, 4])],
        [value("y", F32, [None, 4])],
    )


@makes("initializer_inputs.onnx")
def initializer_inputs():
    """IR version 3, opset 8: `y` = `x` · `weight` + `bias`, f32 [batch, 4], where the initializers
    `weight` and `bias` are also listed among the graph's inputs."""
    return model(
        "initializer_inputs",
        [node("MatMul", "x weight", "product"), node("Add", "product bias", "y")],
        [value("x", F32, ROWS), value("weight", F32, [4, 4]), value("bias", F32, [4])],
        [value("y", F32, ROWS)],
        {
            "weight": numbers("initializer_inputs.weight", 4, 4),
            "bias": numbers("initializer_inputs.bias", 4),
        },
        opset=8,
        ir_version=3,
    )


@makes("half.onnx")
def half():
    """`y` = `x` + 0.5, f16 [batch, 4]."""
    return model(
        "half",
        [node("Add", "x shift", "y")],
        [value("x", F16, ROWS)],
        [value("y", F16, ROWS)],
        {"shift": np.float16(0.5)},
    )


@makes("bfloat.onnx")
def bfloat():
    """`x` bf16 [batch, 4] cast to `y` f32 [batch, 4]."""
    return model(
        "bfloat",
        [node("Cast", "x", "y", to=F32)],
        [value("x", BF16, ROWS)],
        [value("y", F32, ROWS)],
    )


@makes("shared_mask.onnx")
def shared_mask():
    """`scores` f32 [batch, 2, sequence, sequence] + `mask` f32 [1, 1, sequence, sequence] = `y`: an
    input without a batch axis whose other axes carry a symbol, twice."""
    square = ["sequence", "sequence"]
    return model(
        "shared_mask",
        [node("Add", "scores mask", "y")],
        [value("scores", F32, ["batch", 2, *square]), value("mask", F32, [1, 1, *square])],
        [value("y", F32, ["batch", 2, *square])],
    )


@makes("halves.onnx")
def halves():
    """`x` f32 [batch, 6] to `halves` f32 [?, 3]: every row becomes two, and no name says so."""
    return model(
        "halves",
        [node("Relu", "x", "bent"), node("Reshape", "bent shape", "halves")],
        [value("x", F32, ["batch", 6])],
        [value("halves", F32, [None, 3])],
        {"shape": np.array([-1, 3], np.int64)},
    )


@makes("tokens.onnx")
def tokens():
    """`x` f32 [batch, sequence, 4] to `tokens` f32 [?, 4]: batch and sequence in one axis, from
    which the padding of a sequence cannot be cut."""
    return model(
        "tokens",
        [node("Relu", "x", "bent"), node("Reshape", "bent shape", "tokens")],
        [value("x", F32, ["batch", "sequence", 4])],
        [value("tokens", F32, [None, 4])],
        {"shape": np.array([-1, 4], np.int64)},
    )


@makes("time_major.onnx")
def time_major():
    """`x` f32 [sequence, batch, 4]: the batch is not the leading axis. `moved` f32 [sequence, batch,
    4] = `x` + 1; `turned` f32 [batch, sequence, 4] is `x` with its first two axes exchanged."""
    return model(
        "time_major",
        [node("Add", "x one", "moved"), node("Transpose", "x", "turned", perm=[1, 0, 2])],
        [value("x", F32, ["sequence", "batch", 4])],
        [value("moved", F32, ["sequence", "batch", 4]), value("turned", F32, ["batch", "sequence", 4])],
        {"one": np.float32(1)},
    )


@makes("views.onnx")
def views():
    """`x` f32 [batch, 4] to outputs that a compiler may make without moving an element: `turned`
    f32 [4, batch], `spread` f32 [batch, 4, 3] with every element three times, `part` f32 [batch, 2]
    from the middle, `same` f32 [batch, 4]."""
    return model(
        "views",
        [
            node("Transpose", "x", "turned", perm=[1, 0]),
            node("Unsqueeze", "x last", "column"),
            node("Expand", "column wide", "spread"),
            node("Slice", "x from to last_axis", "part"),
            node("Identity", "x", "same"),
        ],
        [value("x", F32, ROWS)],
        [
            value("turned", F32, [4, "batch"]),
            value("spread", F32, ["batch", 4, 3]),
            value("part", F32, ["batch", 2]),
            value("same", F32, ROWS),
        ],
        {
            "last": np.array([2], np.int64),
            "wide": np.array([1, 1, 3], np.int64),
            "from": np.array([1], np.int64),
            "to": np.array([3], np.int64),
            "last_axis": np.array([1], np.int64),
        },
    )


@makes("odd_rows.onnx")
def odd_rows():
    """Twelve element types with rows of 3, 5 or 7 elements; output `<type>_twice` has every row of
    input `<type>` twice, side by side: `bool`, `u16`, `i32`, `f16` [batch, 3], `u8`, `i16`, `u64`,
    `bf16` [batch, 5], `i8`, `u32`, `i64`, `f64` [batch, 7]."""
    kinds = {"u16": TensorProto.UINT16, "i16": TensorProto.INT16, "u32": TensorProto.UINT32}
    kinds |= {"u64": TensorProto.UINT64, "i8": TensorProto.INT8, "f16": F16, "bf16": BF16}
    kinds |= {"bool": BOOL, "u8": U8, "i32": I32, "i64": I64, "f64": F64}
    widths = {"bool": 3, "u16": 3, "i32": 3, "f16": 3, "u8": 5, "i16": 5, "u64": 5, "bf16": 5}
    widths |= {"i8": 7, "u32": 7, "i64": 7, "f64": 7}
    return model(
        "odd_rows",
        [node("Concat", f"{name} {name}", f"{name}_twice", axis=1) for name in widths],
        [value(name, kinds[name], ["batch", width]) for name, width in widths.items()],
        [value(f"{name}_twice", kinds[name], ["batch", 2 * width]) for name, width in widths.items()],
    )


@makes("float8.onnx")
def float8():
    """Opset 19: `x` f8e4m3fnuz [batch, 3] cast to `y` f32 [batch, 3]."""
    return model(
        "float8",
        [node("Cast", "x", "y", to=F32)],
        [value("x", TensorProto.FLOAT8E4M3FNUZ, ["batch", 3])],
        [value("y", F32, ["batch", 3])],
        opset=19,
        ir_version=9,
    )


@makes("unshaped.onnx")
def unshaped():
    """`x` f32 [batch, 4] to `y` = `x` + 1 of whose shape the file says nothing, not even its rank."""
    return model(
        "unshaped",
        [node("Add", "x one", "y")],
        [value("x", F32, ROWS)],
        [value("y", F32, None)],
        {"one": np.float32(1)},
        # The checker wants a shape; runtimes and exporters do without.
        valid=False,
    )


@makes("no_elements.onnx")
def no_elements():
    """`x` f32 [batch, 4] to `none` f32 [batch, 0], which never has an element, and `y` f32 [batch, 4]
    = relu(`x`)."""
    axis, zero = np.array([1], np.int64), np.array([0], np.int64)
    return model(
        "no_elements",
        [node("Slice", "x zero zero axis", "none"), node("Relu", "x", "y")],
        [value("x", F32, ROWS)],
        [value("none", F32, ["batch", 0]), value("y", F32, ROWS)],
        {"zero": zero, "axis": axis},
    )


@makes("unknown_operator.onnx")
def unknown_operator():
    """`x` to `y`, f32 [batch, 4], by an operator `Frobnicate` that does not exist: no backend can
    load it."""
    return model(
        "unknown_operator",
        [node("Frobnicate", "x", "y")],
        [value("x", F32, ROWS)],
        [value("y", F32, ROWS)],
        valid=False,
    )


@makes("future_opset.onnx")
def future_opset():
    """`identity.onnx` that asks for opset 999: the CPU backends refuse it, MIGraphX does not look."""
    return model(
        "future_opset",
        [node("Identity", "x", "y")],
        [value("x", F32, ROWS)],
        [value("y", F32, ROWS)],
        opset=999,
        valid=False,
    )


README = """\
# Tiny models

Models for the tests, each under 50 kB, opset {opset} unless the table says otherwise. Symbols such as
`batch` are dimensions without a value. The weights are multiples of 1/64 that the tensor's name
decides.

This folder, this file included, is written by

```sh
python3 xtask/python/make_tiny_models.py --out tests/models
```

and `--check` says whether it still is what the script writes. The packages are those of
`xtask/python/requirements.txt`.

| File | What it holds |
| --- | --- |
{rows}
"""


def everything():
    """The bytes of every file, by name."""
    files, rows = {}, []
    for name, maker in MAKERS.items():
        made = maker()
        if isinstance(made, bytes):
            made = {name: made}
        elif not isinstance(made, dict):
            made = {name: made.SerializeToString(deterministic=True)}
        files.update(made)
        listed = ", ".join(f"`{file}`" for file in made)
        rows.append(f"| {listed} | {' '.join(maker.__doc__.split())} |")
    files["README.md"] = README.format(opset=OPSET, rows="\n".join(rows)).encode()
    return files


def check(directory, files):
    """What is wrong with `directory`, one sentence a file."""
    there = {str(path.relative_to(directory)): path for path in directory.rglob("*") if path.is_file()}
    for name in sorted(files.keys() | there.keys()):
        if name not in there:
            yield f"{directory / name} is missing"
        elif name not in files:
            yield f"{directory / name} is not a file that make_tiny_models.py writes"
        elif there[name].read_bytes() != files[name]:
            yield f"{directory / name} differs from what make_tiny_models.py writes"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="the models' folder")
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    arguments = parser.parse_args()
    files = everything()
    if arguments.check:
        faults = list(check(arguments.out, files))
        for fault in faults:
            print(fault)
        if faults:
            count = "1 file is" if len(faults) == 1 else f"{len(faults)} files are"
            fail(f"{count} not as make_tiny_models.py writes them; run it without --check")
        print(f"{arguments.out}: {len(files)} files are as make_tiny_models.py writes them")
        return
    for name, data in files.items():
        write_atomically(arguments.out / name, data)
    print(f"{arguments.out}: {len(files)} files, {sum(map(len, files.values()))} bytes")


if __name__ == "__main__":
    main()
