"""A tiny encoder like ModernBERT, as ONNX and as GGUF of the same weights.

The ONNX graph follows the published model (Warner et al., 2024) in plain operators of opset 17: places and
tables of their cosines and sines are constants that are cut to the length.
"""

import numpy as np
from onnx import TensorProto

from encoder_graph import MASKED
from make_gguf import ALIGNMENT, BOOL, FLOAT32, STRING, UINT32, entry, file_of
from tiny_graph import F32, I64, makes, model, node, numbers, value

LAYERS, HEADS, HIDDEN, INTERMEDIATE = 4, 2, 16, 8
VOCABULARY, POSITIONS = 128, 64
WINDOW, PERIOD = 8, 3
GLOBAL_BASE, LOCAL_BASE = 160000.0, 10000.0
EPSILON = 1e-5


def modern_weights():
    """The weights under llama.cpp's names; a matrix is [out, in]."""
    shapes = {"token_embd": (VOCABULARY, HIDDEN), "token_embd_norm": (HIDDEN,), "output_norm": (HIDDEN,)}
    for layer in range(LAYERS):
        parts = {
            "attn_norm": (HIDDEN,),
            "attn_qkv": (3 * HIDDEN, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN),
            "ffn_norm": (HIDDEN,),
            "ffn_up": (2 * INTERMEDIATE, HIDDEN),
            "ffn_down": (HIDDEN, INTERMEDIATE),
        }
        if layer == 0:
            del parts["attn_norm"]
        shapes.update({f"blk.{layer}.{part}": shape for part, shape in parts.items()})
    weights = {}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = numbers(f"modern_encoder.{name}", *shape) * np.float32(0.5)
        if name.endswith("norm"):
            weights[f"{name}.weight"] += np.float32(1)
    return weights


def rotations(base):
    """Cosines and sines of every place, [1, places, 1, width / 2]."""
    width = HIDDEN // HEADS
    speeds = base ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    angles = np.arange(POSITIONS)[:, None] * speeds[None, :]
    return [table(angles).astype(np.float32)[None, :, None, :] for table in (np.cos, np.sin)]


def constants():
    made = {
        "places.all": np.arange(POSITIONS, dtype=np.int64)[:, None],
        "reach": np.int64(WINDOW // 2),
        "nothing": np.float32(0),
        "split": np.array([0, 0, HEADS, HIDDEN // HEADS], np.int64),
        "join": np.array([0, 0, HIDDEN], np.int64),
        "root_head": np.float32(np.sqrt(HIDDEN // HEADS)),
        "masked": np.float32(MASKED),
        "unit": np.float32(1),
        "half": np.float32(0.5),
        "root_two": np.float32(np.sqrt(2.0)),
        "middle": np.array([HIDDEN // HEADS // 2], np.int64),
        "width": np.array([HIDDEN // HEADS], np.int64),
    }
    for number in range(4):
        made[f"at_{number}"] = np.array([number], np.int64)
    made["axes_1_2"] = np.array([1, 2], np.int64)
    for kind, base in (("global", GLOBAL_BASE), ("local", LOCAL_BASE)):
        made[f"{kind}.cos.all"], made[f"{kind}.sin.all"] = rotations(base)
    return made


def shared_nodes():
    """Tables cut to the length, masks, and the embeddings."""
    nodes = [
        node("Shape", "input_ids", "length", start=1, end=2),
        node("Slice", "places.all at_0 length at_0", "places"),
        node("Transpose", "places", "places.row", perm=[1, 0]),
        node("Sub", "places places.row", "apart"),
        node("Abs", "apart", "distance"),
        node("Greater", "distance reach", "is_far"),
        node("Where", "is_far masked nothing", "far"),
        node("Unsqueeze", "attention_mask axes_1_2", "mask.wide"),
        node("Cast", "mask.wide", "mask.float", to=TensorProto.FLOAT),
        node("Sub", "unit mask.float", "mask.inverse"),
        node("Mul", "mask.inverse masked", "global.mask"),
        node("Add", "global.mask far", "local.mask"),
        node("Gather", "token_embd.weight input_ids", "words"),
        norm("words", "token_embd_norm", "state.0"),
    ]
    for kind in ("global", "local"):
        for part in ("cos", "sin"):
            used = f"{kind}.{part}.used"
            nodes.append(node("Slice", f"{kind}.{part}.all at_0 length at_1", used))
            # The halves of a head are the pairs that turn together.
            nodes.append(node("Concat", f"{used} {used}", f"{kind}.{part}", axis=-1))
    return nodes


def norm(source, part, output):
    return node("LayerNormalization", f"{source} {part}.weight", output, axis=-1, epsilon=EPSILON)


def rotated(layer, part, kind, order):
    """A query or key turned: `x · cos + (-second half, first half) · sin`."""
    own = f"{layer}.{part}"
    return [
        node("Reshape", f"{own}.flat split", f"{own}.apart"),
        node("Slice", f"{own}.apart at_0 middle at_3", f"{own}.first"),
        node("Slice", f"{own}.apart middle width at_3", f"{own}.second"),
        node("Neg", f"{own}.second", f"{own}.minus"),
        node("Concat", f"{own}.minus {own}.first", f"{own}.half_turned", axis=-1),
        node("Mul", f"{own}.apart {kind}.cos", f"{own}.along"),
        node("Mul", f"{own}.half_turned {kind}.sin", f"{own}.across"),
        node("Add", f"{own}.along {own}.across", f"{own}.turned"),
        node("Transpose", f"{own}.turned", f"{own}.heads", perm=order),
    ]


def layer_nodes(index):
    layer = f"blk.{index}"
    kind = "global" if index % PERIOD == 0 else "local"
    state = f"state.{index}"
    nodes = [] if index == 0 else [norm(state, f"{layer}.attn_norm", f"{layer}.normal")]
    normal = f"{layer}.normal" if nodes else state
    return [
        *nodes,
        node("MatMul", f"{normal} {layer}.attn_qkv.turned", f"{layer}.qkv"),
        node("Split", f"{layer}.qkv", f"{layer}.query.flat {layer}.key.flat {layer}.value.flat", axis=-1),
        *rotated(layer, "query", kind, [0, 2, 1, 3]),
        *rotated(layer, "key", kind, [0, 2, 3, 1]),
        node("Reshape", f"{layer}.value.flat split", f"{layer}.value.apart"),
        node("Transpose", f"{layer}.value.apart", f"{layer}.value.heads", perm=[0, 2, 1, 3]),
        node("MatMul", f"{layer}.query.heads {layer}.key.heads", f"{layer}.products"),
        node("Div", f"{layer}.products root_head", f"{layer}.scores"),
        node("Add", f"{layer}.scores {kind}.mask", f"{layer}.masked"),
        node("Softmax", f"{layer}.masked", f"{layer}.shares", axis=-1),
        node("MatMul", f"{layer}.shares {layer}.value.heads", f"{layer}.mixed"),
        node("Transpose", f"{layer}.mixed", f"{layer}.rows", perm=[0, 2, 1, 3]),
        node("Reshape", f"{layer}.rows join", f"{layer}.joined"),
        node("MatMul", f"{layer}.joined {layer}.attn_output.turned", f"{layer}.attended"),
        node("Add", f"{layer}.attended {state}", f"{layer}.middle"),
        norm(f"{layer}.middle", f"{layer}.ffn_norm", f"{layer}.ffn_normal"),
        node("MatMul", f"{layer}.ffn_normal {layer}.ffn_up.turned", f"{layer}.wide"),
        node("Split", f"{layer}.wide", f"{layer}.straight {layer}.gate", axis=-1),
        node("Div", f"{layer}.straight root_two", f"{layer}.scaled"),
        node("Erf", f"{layer}.scaled", f"{layer}.erf"),
        node("Add", f"{layer}.erf unit", f"{layer}.raised"),
        node("Mul", f"{layer}.straight {layer}.raised", f"{layer}.doubled"),
        node("Mul", f"{layer}.doubled half", f"{layer}.bent"),
        node("Mul", f"{layer}.bent {layer}.gate", f"{layer}.gated"),
        node("MatMul", f"{layer}.gated {layer}.ffn_down.turned", f"{layer}.narrow"),
        node("Add", f"{layer}.narrow {layer}.middle", f"state.{index + 1}"),
    ]


@makes("modern_encoder.onnx")
def modern_encoder():
    """A text encoder like ModernBERT: `input_ids`, `attention_mask` i64 [batch, sequence] to
    `last_hidden_state` f32 [batch, sequence, 16]. 4 layers, of which the first and the last look at
    all tokens and the others at 4 on either side; 2 heads, vocabulary 128, at most 64 positions."""
    nodes = shared_nodes()
    for index in range(LAYERS):
        nodes += layer_nodes(index)
    nodes.append(norm(f"state.{LAYERS}", "output_norm", "last_hidden_state"))
    stored = constants()
    for name, array in modern_weights().items():
        is_matrix = array.ndim == 2 and name != "token_embd.weight"
        turned = name.replace(".weight", ".turned")
        stored[turned if is_matrix else name] = np.ascontiguousarray(array.T) if is_matrix else array
    tokens = ["batch", "sequence"]
    return model(
        "modern_encoder",
        nodes,
        [value("input_ids", I64, tokens), value("attention_mask", I64, tokens)],
        [value("last_hidden_state", F32, [*tokens, HIDDEN])],
        stored,
    )


@makes("modern_encoder.gguf")
def gguf_modern_encoder():
    """The weights of `modern_encoder.onnx` as a GGUF file of the architecture `modern-bert`, f32,
    without a tokenizer."""
    sizes = {
        "block_count": LAYERS,
        "context_length": POSITIONS,
        "embedding_length": HIDDEN,
        "feed_forward_length": INTERMEDIATE,
        "attention.head_count": HEADS,
        "attention.sliding_window": WINDOW,
        "attention.sliding_window_pattern": PERIOD,
    }
    floats = {
        "attention.layer_norm_epsilon": EPSILON,
        "rope.freq_base": GLOBAL_BASE,
        "rope.freq_base_swa": LOCAL_BASE,
    }
    metadata = [
        entry("general.architecture", STRING, "modern-bert"),
        entry("general.alignment", UINT32, ALIGNMENT),
        *(entry(f"modern-bert.{key}", UINT32, size) for key, size in sizes.items()),
        *(entry(f"modern-bert.{key}", FLOAT32, number) for key, number in floats.items()),
        entry("modern-bert.attention.causal", BOOL, False),
        entry("modern-bert.rope.scaling.type", STRING, "none"),
    ]
    tensors = [(name, np.ascontiguousarray(array, "<f4")) for name, array in modern_weights().items()]
    return file_of(metadata, tensors)
