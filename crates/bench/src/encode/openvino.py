"""Encodes texts that are token ids already with OpenVINO, and says what it took.

    python -c SCRIPT probe
    python -c SCRIPT encode MODEL TOKENS VECTORS STREAMS THREADS PRECISION < BATCHES

TOKENS is a JSON list of lists of ids, BATCHES one of lists of texts by number. VECTORS gets one row of f32 a
text, mean-pooled and normalised. STREAMS batches run at once, each on THREADS threads.
"""

import json
import resource
import sys
import time

import numpy as np
import openvino as ov


def probe():
    capabilities = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    print(json.dumps({"version": version(), "has_bf16": "BF16" in capabilities}))


def version():
    return ov.__version__.split("-")[0]


def compiled(path, n_streams, n_threads, precision):
    model = ov.Core().compile_model(
        path,
        "CPU",
        {
            "NUM_STREAMS": str(n_streams),
            "INFERENCE_NUM_THREADS": str(n_streams * n_threads),
            "INFERENCE_PRECISION_HINT": precision,
        },
    )
    names = {ov.Type.f32: "f32", ov.Type.bf16: "bf16"}
    found = names.get(model.get_property("INFERENCE_PRECISION_HINT"))
    if found != precision:
        sys.exit(f"OpenVINO was asked for {precision} and computes in {found or 'something else'}")
    return model


def inputs(model, ids, items):
    shape = (len(items), max(len(ids[item]) for item in items))
    values = {"input_ids": np.zeros(shape, np.int64), "attention_mask": np.zeros(shape, np.int64)}
    for row, item in enumerate(items):
        values["input_ids"][row, : len(ids[item])] = ids[item]
        values["attention_mask"][row, : len(ids[item])] = 1
    names = [model_input.get_any_name() for model_input in model.inputs]
    unknown = set(names) - {*values, "token_type_ids"}
    if unknown:
        sys.exit(f"OpenVINO cannot be driven directly: what are the inputs {sorted(unknown)}?")
    return {name: values.get(name, np.zeros(shape, np.int64)) for name in names}


def encode(model, ids, batches, n_streams):
    vectors = [None] * len(ids)

    def pool(request, items):
        hidden = request.get_output_tensor(0).data
        for row, item in enumerate(items):
            mean = hidden[row, : len(ids[item])].mean(axis=0, dtype=np.float32)
            vectors[item] = mean / np.linalg.norm(mean)

    queue = ov.AsyncInferQueue(model, n_streams)
    queue.set_callback(pool)
    for items in batches:
        queue.start_async(inputs(model, ids, items), items)
    queue.wait_all()
    return np.stack(vectors).astype(np.float32)


def duration(seconds):
    return {"secs": int(seconds), "nanos": int(seconds % 1 * 1e9)}


def run(path, tokens, to, n_streams, n_threads, precision):
    with open(tokens, encoding="utf-8") as file:
        ids = json.load(file)
    batches = json.load(sys.stdin)
    model = compiled(path, int(n_streams), int(n_threads), precision)
    start, before = time.perf_counter(), time.process_time()
    vectors = encode(model, ids, batches, int(n_streams))
    wall, cpu = time.perf_counter() - start, time.process_time() - before
    vectors.tofile(to)
    padded = sum(len(items) * max(len(ids[item]) for item in items) for items in batches)
    measured = {
        "wall": duration(wall),
        "cpu": duration(cpu),
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "n_padded_tokens": padded,
        "setting": None,
        "tried": [],
        "backend": f"openvino {version()}",
        "n_dims": vectors.shape[1],
    }
    print(json.dumps(measured))


if sys.argv[1] == "probe":
    probe()
else:
    run(*sys.argv[2:])
