"""Computes the embeddings that MiniLM-L6-v2 gives in PyTorch, to measure other runtimes against.

    python3 reference_embeddings.py --texts FILE.jsonl --out FILE.safetensors [--weights DIR]

FILE.jsonl has one {"text": ...} a line. FILE.safetensors holds, in the order of the lines:

embeddings     float32 [n, 384]   the mean of the last hidden state over the tokens, of length 1
token_counts   int64 [n]          the tokens of each text, [CLS] and [SEP] among them, 512 at most

Its metadata's `origin` is JSON: the command, the versions, the method, the hashes of what was read.

Each text runs alone, so nothing is padded, and in float64, so that what other runtimes differ by is
their own error. The packages are those of requirements-reference.txt and requirements-model.txt.
"""

import argparse
import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save
from tokenizers import Tokenizer

from files import fail, write_and_report
from minilm_package import model_directory

LONGEST = 512
PACKAGES = ("torch", "transformers", "tokenizers")


def read_texts(path):
    """The texts and the SHA-256 of the file."""
    try:
        data = path.read_bytes()
        lines = data.decode("utf-8").rstrip("\n").split("\n")
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")
    except UnicodeDecodeError as error:
        fail(f"{path} is not UTF-8: {error}")
    texts = []
    for number, line in enumerate(lines, start=1):
        try:
            texts.append(json.loads(line)["text"])
        except (ValueError, KeyError, TypeError):
            fail(f'{path}, line {number}: expected {{"text": ...}}')
    return texts, hashlib.sha256(data).hexdigest()


def load(directory):
    """The tokenizer, cutting at LONGEST and never padding, and the model in float64."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import BertModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    model = BertModel.from_pretrained(directory, attn_implementation="eager", add_pooling_layer=False)
    return tokenizer, model.double().eval()


def embed(tokenizer, model, text):
    """The embedding of one text and how many tokens it has."""
    encoding = tokenizer.encode(text)
    with torch.inference_mode():
        state = model(
            input_ids=torch.tensor([encoding.ids]),
            attention_mask=torch.tensor([encoding.attention_mask]),
            token_type_ids=torch.tensor([encoding.type_ids]),
        ).last_hidden_state[0]
    mean = state.mean(dim=0)
    return (mean / mean.norm()).numpy(), len(encoding.ids)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--texts", type=Path, metavar="FILE", required=True, help="the texts")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="what to write")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="the directory of the package")
    arguments = parser.parse_args()

    texts, digest = read_texts(arguments.texts)
    directory = model_directory(arguments.weights)
    tokenizer, model = load(directory)
    embeddings, counts = zip(*(embed(tokenizer, model, text) for text in texts))
    origin = {
        "command": "python3 xtask/python/reference_embeddings.py"
        f" --texts {arguments.texts.as_posix()} --out {arguments.out.as_posix()}",
        "versions": ", ".join(f"{package} {version(package)}" for package in PACKAGES),
        "weights_sha256": hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest(),
        "texts_sha256": digest,
        "method": f"at most {LONGEST} tokens, one text at a time, float64, mean over tokens, length 1",
    }
    tensors = {
        "embeddings": np.stack(embeddings).astype(np.float32),
        "token_counts": np.array(counts, np.int64),
    }
    # One entry of metadata, since safetensors orders several by chance.
    write_and_report(arguments.out, save(tensors, metadata={"origin": json.dumps(origin, sort_keys=True)}))


if __name__ == "__main__":
    main()
