#!/bin/sh
# Looks at a text encoder, embeds the text below a folder, and shows what the first rows are.
# Without arguments it takes the tiny encoder of the tests:
#
#     sh crates/cli/examples/embed_folder.sh [MODEL.onnx TOKENIZER.json FOLDER]
set -eu
models="$(dirname "$0")/../../../tests/models"
model="${1:-$models/encoder.onnx}"
tokenizer="${2:-$models/tiny_tokenizer.json}"
folder="${3:-$(dirname "$0")/../src}"

out="$(mktemp -d)"
trap 'rm -r "$out"' EXIT
shapeyard inspect "$model"
shapeyard encode "$model" --tokenizer "$tokenizer" --max-length 64 --normalize "$folder" --out "$out/e.npy"
head -n 3 "$out/e.npy.units.jsonl"
