"""Quantises the weights of an encoder to 8 bits, by ONNX Runtime's dynamic quantisation.

    python3 quantise_encoder.py --model DIR/minilm-l6.onnx --out DIR/minilm-l6-int8.onnx

Weights become signed 8-bit integers with one scale per output channel; activations are quantised
when the model runs, so no calibration data is needed. Inputs, outputs and symbols stay as they
are. The same model and the same onnxruntime version give the same bytes.
"""

import argparse
import logging
import tempfile
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic

from files import fail, write_and_report


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, metavar="FILE", required=True, help="the float32 model")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="what to write")
    arguments = parser.parse_args()
    if not arguments.model.is_file():
        fail(f"there is no model {arguments.model}; make_encoder.py writes one")

    # The quantiser advises a pre-processing pass, which would bake shapes into the graph.
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "quantised.onnx"
        try:
            # Weights of 7 bits: on processors that have no instructions for 8-bit products, sums of two
            # larger ones do not fit in 16 bits, and are cut off without a word.
            quantize_dynamic(
                arguments.model, result, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8
            )
        except Exception as error:  # The quantiser raises many kinds; each means the same here.
            fail(f"ONNX Runtime cannot quantise {arguments.model}: {error}")
        write_and_report(arguments.out, result.read_bytes())


if __name__ == "__main__":
    main()
