"""A .tflite file of one int8 FULLY_CONNECTED, written by hand so that exact halves abound.

All scales are powers of two and the output's is 16 times the sum's: one sum in 16 is an exact half
of an output code, where kernels that round otherwise differ.
"""

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

SCALE, COARSER = 2.0**-4, 16.0


def one_product(weights: np.ndarray, bias: np.ndarray) -> bytes:
    """The file for int8 `weights` [outputs, inputs] and int32 `bias` [outputs]."""
    outputs, inputs = weights.shape
    model = schema.ModelT()
    model.version = 3
    model.buffers = [_buffer(None), _buffer(weights), _buffer(bias)]
    int8, int32 = schema.TensorType.INT8, schema.TensorType.INT32
    tensors = [
        _tensor("x", (1, inputs), int8, SCALE, 0),
        _tensor("weights", (outputs, inputs), int8, SCALE, 1),
        _tensor("bias", (outputs,), int32, SCALE * SCALE, 2),
        _tensor("y", (1, outputs), int8, COARSER * SCALE * SCALE, 0),
    ]
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs = tensors, [0], [3]
    graph.operators = [_fully_connected()]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4
    model.operatorCodes, model.subgraphs = [code], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _fully_connected() -> schema.OperatorT:
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0, 1, 2], [3]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    return operator


def _tensor(
    name: str, shape: tuple[int, ...], dtype: int, scale: float, buffer: int
) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), dtype, buffer
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0]
    return tensor


def _buffer(array: np.ndarray | None) -> schema.BufferT:
    buffer = schema.BufferT()
    if array is not None:
        buffer.data = list(array.tobytes())
    return buffer
