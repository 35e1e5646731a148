"""A model as if compiled for a Coral."""


def compiled(model: bytes) -> bytes:
    """`model` with its first LOGISTIC as the operator that Coral's compiler makes."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    parsed = flatbuffer_utils.convert_bytearray_to_object(bytearray(model))
    custom = schema.OperatorCodeT()
    custom.builtinCode = custom.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    custom.customCode = b"edgetpu-custom-op"
    parsed.operatorCodes.append(custom)
    codes = [code.builtinCode for code in parsed.operatorCodes]
    logistic = codes.index(schema.BuiltinOperator.LOGISTIC)
    first = next(o for o in parsed.subgraphs[0].operators if o.opcodeIndex == logistic)
    first.opcodeIndex = len(codes) - 1
    return bytes(flatbuffer_utils.convert_object_to_bytearray(parsed))
