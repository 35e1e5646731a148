"""A model as if compiled for a Coral."""


def compiled(model: bytes) -> bytes:
    """`model` with its first LOGISTIC as the operator that Coral's compiler makes."""
    from tests.edge_runtime.tflite_schema import packed, parsed, schema

    edited = parsed(model)
    custom = schema.OperatorCodeT()
    custom.builtinCode = custom.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    custom.customCode = b"edgetpu-custom-op"
    edited.operatorCodes.append(custom)
    codes = [code.builtinCode for code in edited.operatorCodes]
    logistic = codes.index(schema.BuiltinOperator.LOGISTIC)
    first = next(o for o in edited.subgraphs[0].operators if o.opcodeIndex == logistic)
    first.opcodeIndex = len(codes) - 1
    return packed(edited)
