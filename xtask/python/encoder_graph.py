"""Builds the ONNX graph of a BERT encoder from named weights.

Inputs    input_ids, attention_mask, token_type_ids   int64   [batch, sequence]
Output    last_hidden_state                           float32 [batch, sequence, hidden]

`batch` and `sequence` are symbols: one file serves every shape. The graph keeps to plain ONNX
operators of opset 17, so that every backend reads the same file:

* Positions are a constant range 0, 1, 2, ... cut to the length that `Shape` reports at run time.
  `Range` would say it more directly, but not every parser of dynamic shapes knows it.
* `Reshape` copies batch and sequence from its input (a 0 in the target), never infers them, so
  that a batch of no rows works too.
* Masked positions get -3.4e38 added to their score. That is finite, and stays finite when a
  negative score is added, so a row whose mask is all zeros (padding) gives numbers and not NaN.
"""

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "last_hidden_state"
MASKED = -3.4e38


@dataclass(frozen=True)
class EncoderConfig:
    """The sizes of an encoder that its weights alone do not tell."""

    layers: int
    heads: int
    epsilon: float


def weight_shapes(config, *, vocabulary, positions, types, hidden, intermediate):
    """The name and the shape of every weight that `build_encoder` reads, as PyTorch stores them:
    the weight of a linear layer is [out, in]."""
    shapes = {
        "embeddings.word_embeddings.weight": (vocabulary, hidden),
        "embeddings.position_embeddings.weight": (positions, hidden),
        "embeddings.token_type_embeddings.weight": (types, hidden),
    }

    def norm(prefix):
        shapes[f"{prefix}.weight"] = (hidden,)
        shapes[f"{prefix}.bias"] = (hidden,)

    def linear(prefix, outward, inward):
        shapes[f"{prefix}.weight"] = (outward, inward)
        shapes[f"{prefix}.bias"] = (outward,)

    norm("embeddings.LayerNorm")
    for index in range(config.layers):
        layer = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", hidden, hidden)
        linear(f"{layer}.attention.output.dense", hidden, hidden)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", intermediate, hidden)
        linear(f"{layer}.output.dense", hidden, intermediate)
        norm(f"{layer}.output.LayerNorm")
    return shapes


class _Graph:
    """Collects nodes and initializers; every method returns the name of the value it made."""

    def __init__(self):
        self.nodes = []
        self.initializers = {}

    def constant(self, name, array):
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def node(self, operator, inputs, name, **attributes):
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name


def build_encoder(config, weights, *, name):
    """The encoder as a checked `ModelProto`; `weights` maps the names of `weight_shapes` to float32
    arrays."""
    graph = _Graph()
    hidden = weights["embeddings.word_embeddings.weight"].shape[1]
    positions = weights["embeddings.position_embeddings.weight"].shape[0]
    head_size = hidden // config.heads

    axes = graph.constant("axes.heads_queries", np.array([1, 2], np.int64))
    split = graph.constant("shape.split_heads", np.array([0, 0, config.heads, head_size], np.int64))
    join = graph.constant("shape.join_heads", np.array([0, 0, hidden], np.int64))
    zero = graph.constant("zero", np.array([0], np.int64))
    one = graph.constant("one", np.array([1], np.int64))
    half = graph.constant("half", np.float32(0.5))
    unit = graph.constant("unit", np.float32(1.0))
    root_two = graph.constant("root_two", np.float32(np.sqrt(2.0)))
    root_head = graph.constant("root_head_size", np.float32(np.sqrt(head_size)))
    masked = graph.constant("masked", np.float32(MASKED))

    def table(part):
        return graph.constant(part, weights[part])

    def norm(value, prefix):
        parameters = [table(f"{prefix}.weight"), table(f"{prefix}.bias")]
        return graph.node(
            "LayerNormalization", [value, *parameters], f"{prefix}.out", axis=-1, epsilon=config.epsilon
        )

    def linear(value, prefix):
        matrix = graph.constant(f"{prefix}.weight", weights[f"{prefix}.weight"].T)
        product = graph.node("MatMul", [value, matrix], f"{prefix}.product")
        return graph.node("Add", [product, table(f"{prefix}.bias")], f"{prefix}.out")

    def heads(value, prefix, order):
        apart = graph.node("Reshape", [value, split], f"{prefix}.apart")
        return graph.node("Transpose", [apart], f"{prefix}.heads", perm=order)

    # Embeddings: word + token type + position, normalised.
    length = graph.node("Shape", ["input_ids"], "sequence.length", start=1, end=2)
    every = graph.constant("positions.all", np.arange(positions, dtype=np.int64)[None, :])
    places = graph.node("Slice", [every, zero, length, one], "positions.used")
    words = graph.node(
        "Gather", [table("embeddings.word_embeddings.weight"), "input_ids"], "embeddings.words"
    )
    types = graph.node(
        "Gather", [table("embeddings.token_type_embeddings.weight"), "token_type_ids"], "embeddings.types"
    )
    places = graph.node(
        "Gather", [table("embeddings.position_embeddings.weight"), places], "embeddings.places"
    )
    typed = graph.node("Add", [words, types], "embeddings.typed")
    state = graph.node("Add", [typed, places], "embeddings.sum")
    state = norm(state, "embeddings.LayerNorm")

    # The additive mask, [batch, 1, 1, sequence]: 0 where a token is, MASKED where padding is.
    mask = graph.node("Unsqueeze", ["attention_mask", axes], "mask.wide")
    mask = graph.node("Cast", [mask], "mask.float", to=TensorProto.FLOAT)
    mask = graph.node("Sub", [unit, mask], "mask.inverse")
    mask = graph.node("Mul", [mask, masked], "mask.additive")

    for index in range(config.layers):
        layer = f"encoder.layer.{index}"
        attention = f"{layer}.attention"
        query, key, value = (
            heads(linear(state, f"{attention}.self.{part}"), f"{attention}.self.{part}", order)
            for part, order in (
                ("query", [0, 2, 1, 3]),
                ("key", [0, 2, 3, 1]),
                ("value", [0, 2, 1, 3]),
            )
        )
        scores = graph.node("MatMul", [query, key], f"{attention}.products")
        scores = graph.node("Div", [scores, root_head], f"{attention}.scores")
        scores = graph.node("Add", [scores, mask], f"{attention}.masked")
        shares = graph.node("Softmax", [scores], f"{attention}.shares", axis=-1)
        mixed = graph.node("MatMul", [shares, value], f"{attention}.mixed")
        mixed = graph.node("Transpose", [mixed], f"{attention}.rows", perm=[0, 2, 1, 3])
        mixed = graph.node("Reshape", [mixed, join], f"{attention}.joined")
        mixed = linear(mixed, f"{attention}.output.dense")
        state = graph.node("Add", [mixed, state], f"{attention}.residual")
        state = norm(state, f"{attention}.output.LayerNorm")

        # The GELU with the error function: x * (1 + erf(x / sqrt 2)) * 0.5.
        wide = linear(state, f"{layer}.intermediate.dense")
        bent = graph.node("Div", [wide, root_two], f"{layer}.gelu.scaled")
        bent = graph.node("Erf", [bent], f"{layer}.gelu.erf")
        bent = graph.node("Add", [bent, unit], f"{layer}.gelu.raised")
        bent = graph.node("Mul", [wide, bent], f"{layer}.gelu.product")
        bent = graph.node("Mul", [bent, half], f"{layer}.gelu.out")
        narrow = linear(bent, f"{layer}.output.dense")
        state = graph.node("Add", [narrow, state], f"{layer}.residual")
        state = norm(state, f"{layer}.output.LayerNorm")

    # The last node takes the name of the output; its own name stays.
    graph.nodes[-1].output[0] = OUTPUT

    tokens = ["batch", "sequence"]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            name,
            [helper.make_tensor_value_info(part, TensorProto.INT64, tokens) for part in INPUTS],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [*tokens, hidden])],
            list(graph.initializers.values()),
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="shapeyard",
    )
    checker.check_model(model)
    return model
