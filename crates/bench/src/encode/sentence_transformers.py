"""Encodes texts with sentence-transformers on PyTorch, and says what it took.

    python -c SCRIPT probe
    python -c SCRIPT encode MODEL TEXTS TOKENS VECTORS THREADS BATCH

MODEL is a folder as sentence-transformers saves it. TEXTS is a JSON list of texts, TOKENS one of the lists of ids that
others are given for them. VECTORS gets one row of f32 a text, mean-pooled and normalised. Its own tokenising is
measured by itself and taken off, since others begin with ids.
"""

import json
import os
import resource
import sys
import time

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import sentence_transformers
import torch


def version():
    return f"{sentence_transformers.__version__} with PyTorch {torch.__version__.split('+')[0]}"


def opened(path, max_length):
    model = sentence_transformers.SentenceTransformer(path, device="cpu", local_files_only=True)
    model.max_seq_length = max_length
    return model.float().eval()


def clocks():
    return time.perf_counter(), time.process_time()


def spent(start):
    return [now - then for now, then in zip(clocks(), start)]


def by_length(texts):
    """As `encode` takes them: longest first, by characters."""
    return sorted(texts, key=len, reverse=True)


def batches(texts, n_rows):
    return [texts[at : at + n_rows] for at in range(0, len(texts), n_rows)]


def duration(seconds):
    seconds = max(seconds, 0.0)
    return {"secs": int(seconds), "nanos": int(seconds % 1 * 1e9)}


def run(path, texts, tokens, to, n_threads, n_rows):
    torch.set_num_threads(int(n_threads))
    n_rows = int(n_rows)
    with open(texts, encoding="utf-8") as file:
        texts = json.load(file)
    with open(tokens, encoding="utf-8") as file:
        lengths = [len(ids) for ids in json.load(file)]
    model = opened(path, max(lengths))
    # Older versions call it `tokenize`.
    tokenise = getattr(model, "preprocess", None) or model.tokenize
    start = clocks()
    tokenised = [tokenise(batch) for batch in batches(by_length(texts), n_rows)]
    tokenising = spent(start)
    n_real = sum(int(batch["attention_mask"].sum()) for batch in tokenised)
    if n_real != sum(lengths):
        sys.exit(f"sentence-transformers makes {n_real} tokens of the texts, others get {sum(lengths)}")
    start = clocks()
    vectors = model.encode(
        texts, batch_size=n_rows, normalize_embeddings=True, show_progress_bar=False
    )
    wall, cpu = (whole - part for whole, part in zip(spent(start), tokenising))
    vectors.astype(np.float32).tofile(to)
    measured = {
        "wall": duration(wall),
        "cpu": duration(cpu),
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "n_padded_tokens": sum(batch["input_ids"].numel() for batch in tokenised),
        "setting": None,
        "tried": [],
        "backend": f"sentence-transformers {version()}",
        "n_dims": vectors.shape[1],
    }
    print(json.dumps(measured))


if sys.argv[1] == "probe":
    print(json.dumps({"version": version()}))
else:
    run(*sys.argv[2:])
