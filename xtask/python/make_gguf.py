"""Writes the text encoder MiniLM-L6-v2 as GGUF, from the weights in a package.

    python3 make_gguf.py --out FILE [--weights DIR_OF_PACKAGE]

The file holds the float32 weights under the names that ggml's programs give the architecture `bert`,
and the tokens. The same weights give the same bytes. The format is small enough to be written here:
`docs/gguf.md` of the ggml project.
"""

import argparse
import struct
from pathlib import Path

import numpy as np

from files import fail, write_and_report
from make_encoder import read_model
from minilm_package import model_directory, read_json

ALIGNMENT = 32
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
NORMAL, CONTROL, UNKNOWN = 1, 3, 2

EMBEDDINGS = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
PARTS = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key, kind, value):
    formats = {UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?"}
    data = text(value) if kind == STRING else struct.pack(formats[kind], value)
    return text(key) + struct.pack("<I", kind) + data


def list_entry(key, kind, values):
    data = b"".join(text(value) if kind == STRING else struct.pack("<i", value) for value in values)
    return text(key) + struct.pack("<IIQ", ARRAY, kind, len(values)) + data


def sizes_of(config, weights):
    """The metadata that the weights and the configuration decide."""
    positions, hidden = weights["embeddings.position_embeddings.weight"].shape
    sizes = {
        "bert.block_count": config.layers,
        "bert.context_length": positions,
        "bert.embedding_length": hidden,
        "bert.feed_forward_length": weights["encoder.layer.0.intermediate.dense.weight"].shape[0],
        "bert.attention.head_count": config.heads,
        "bert.pooling_type": 1,
        "general.file_type": 0,
        "general.alignment": ALIGNMENT,
    }
    return [
        entry("general.architecture", STRING, "bert"),
        *(entry(key, UINT32, value) for key, value in sizes.items()),
        entry("bert.attention.layer_norm_epsilon", FLOAT32, config.epsilon),
        entry("bert.attention.causal", BOOL, False),
    ]


def tensors_of(config, weights):
    """The weights under ggml's names, in the order of the layers."""
    names = dict(EMBEDDINGS)
    for index in range(config.layers):
        for theirs, ours in PARTS.items():
            names[f"encoder.layer.{index}.{theirs}"] = f"blk.{index}.{ours}"
    for theirs, ours in names.items():
        for kind in ("weight", "bias"):
            if f"{theirs}.{kind}" in weights:
                yield f"{ours}.{kind}", np.ascontiguousarray(weights[f"{theirs}.{kind}"], "<f4")


def tokens_of(directory):
    """The tokens in order: beginnings of words are marked, where BERT marks continuations."""
    vocabulary = read_json(directory / "tokenizer.json")["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.get)
    if [vocabulary[token] for token in tokens] != list(range(len(tokens))):
        fail("the tokens of tokenizer.json are not numbered without gaps")

    def spelled(token):
        if token.startswith("[") and token.endswith("]") and len(token) > 2:
            return token
        return token[2:] if token.startswith("##") else "\u2581" + token

    special = {"[UNK]": UNKNOWN, "[PAD]": CONTROL, "[CLS]": CONTROL, "[SEP]": CONTROL, "[MASK]": CONTROL}
    kinds = [special.get(token, NORMAL) for token in tokens]
    return [spelled(token) for token in tokens], kinds, vocabulary


def tokenizer_of(directory):
    """The metadata that the tokenizer decides."""
    tokens, kinds, vocabulary = tokens_of(directory)
    special = {
        "unknown": "[UNK]",
        "padding": "[PAD]",
        "cls": "[CLS]",
        "bos": "[CLS]",
        "seperator": "[SEP]",
        "mask": "[MASK]",
    }
    return [
        entry("general.name", STRING, "minilm-l6"),
        entry("tokenizer.ggml.model", STRING, "bert"),
        entry("tokenizer.ggml.token_type_count", UINT32, 2),
        *(
            entry(f"tokenizer.ggml.{name}_token_id", UINT32, vocabulary[token])
            for name, token in special.items()
        ),
        list_entry("tokenizer.ggml.tokens", STRING, tokens),
        list_entry("tokenizer.ggml.token_type", INT32, kinds),
    ]


def padded(data):
    return data + bytes(-len(data) % ALIGNMENT)


def file_of(metadata, tensors):
    infos, data = [], b""
    for name, array in tensors:
        extents = array.shape[::-1]
        infos.append(
            text(name)
            + struct.pack("<I", len(extents))
            + struct.pack(f"<{len(extents)}Q", *extents)
            + struct.pack("<IQ", 0, len(data))
        )
        data += padded(array.tobytes())
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(metadata))
    return padded(head + b"".join(metadata) + b"".join(infos)) + data


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--weights", type=Path, metavar="DIR", help="the directory of the package")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="what to write")
    arguments = parser.parse_args()

    directory = model_directory(arguments.weights)
    config, weights = read_model(directory)
    metadata = sizes_of(config, weights) + tokenizer_of(directory)
    write_and_report(arguments.out, file_of(metadata, list(tensors_of(config, weights))))


if __name__ == "__main__":
    main()
