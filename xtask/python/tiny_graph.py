"""What the makers of tiny models have in common: the register of makers, weights, and nodes."""

import hashlib

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from encoder_graph import IR_VERSION, OPSET

F16, F32, F64, BF16 = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BFLOAT16
I32, I64, U8, BOOL = TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8, TensorProto.BOOL

MAKERS = {}


def makes(file):
    """Marks a function that returns the contents of `file`: a model, bytes, or a dictionary of
    bytes by file name where one model is several files."""

    def register(function):
        MAKERS[file] = function
        return function

    return register


def numbers(name, *shape):
    """Float32 numbers that only the name and the shape decide: multiples of 1/64 in [-1, 1), so
    that short sums of them are exact in any order."""
    count = int(np.prod(shape))
    block = hashlib.shake_256(name.encode()).digest(count)
    steps = np.frombuffer(block, np.uint8).astype(np.float32) % 128 - 64
    return (steps / 64).reshape(shape)


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def model(name, nodes, inputs, outputs, weights=None, *, opset=OPSET, ir_version=IR_VERSION, valid=True):
    """A model of `nodes`; `weights` maps names to arrays; `valid=False` skips the onnx checker."""
    initializers = [numpy_helper.from_array(array, key) for key, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=ir_version,
        producer_name="shapeyard",
    )
    if valid:
        checker.check_model(made)
    return made


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


ROWS = ["batch", 4]
