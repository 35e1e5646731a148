"""What a graph may contain to be run: a closed list of int8 operators, one step, no control flow.

The same rules refuse a conversion on the workstation and a foreign file on the device.
"""

from edge_runtime.bundle.flatbuffer import GraphSummary
from edge_runtime.bundle.operator_rules import USAGES, operator_faults
from edge_runtime.bundle.order_rules import order_faults
from edge_runtime.bundle.tensor_rules import tensor_faults

ALLOWED_OPERATORS = frozenset(USAGES)
# TFLite rounds a FULLY_CONNECTED of at least so many outputs and inputs in one and the same way on
# every processor. In a smaller one an exact half is rounded up on x86-64, away from zero on Arm.
FEWEST_OUTPUTS, FEWEST_INPUTS = 4, 8
# What each part of a step reads and writes; a step has a gate, a GRU or both.
GATE_INPUTS = ("evidence", "magnitude", "difference", "mask", "guarded", "gate")
GATE_OUTPUTS = ("logit", "gate_next")
GRU_INPUTS = ("innovation", "forecast", "evidence", "mask")
GRU_OUTPUTS = ("correction",)
MOST_LAYERS = 16  # recurrent; train makes up to 3
_REASONS = {
    "WHILE": "the GRU became a loop: export one step, not a sequence layer",
    "IF": "control flow: export one step without branches",
    "DEQUANTIZE": "a float island: quantise the whole graph to int8",
}


def graph_faults(graph: GraphSummary) -> list[str]:
    """Reasons why `graph` is not a valid gruard step, empty when it is one.

    Coarse ones first: how operands fit together is only asked of a graph of the right kind.
    """
    for rules in (_kind_faults, tensor_faults, order_faults, operator_faults):
        if faults := rules(graph):
            return faults
    return []


def _kind_faults(graph: GraphSummary) -> list[str]:
    """Reasons why it is no int8 step at all."""
    faults = []
    if graph.subgraphs != 1:
        faults.append(f"{graph.subgraphs} subgraphs instead of 1: {_REASONS['WHILE']}")
    for operator in sorted({o.name for o in graph.operators} - ALLOWED_OPERATORS):
        faults.append(f"operator {operator} is not allowed: {_reason(operator)}")
    floats = [t.name for t in graph.tensors if t.dtype not in ("int8", "int32")]
    if floats:
        faults.append(
            f"{len(floats)} tensors are not int8 (first: {floats[0][:60]}): "
            "convert with full-integer quantisation"
        )
    faults += [f"{extra}: nothing that gruard writes; convert again" for extra in graph.extras]
    return faults + _rounding_faults(graph) + _signature_faults(graph)


def _reason(operator: str) -> str:
    if operator.startswith(("CUSTOM", "BUILTIN")):
        return "only TFLite's built-in " + ", ".join(sorted(ALLOWED_OPERATORS))
    return _REASONS.get(operator, "only " + ", ".join(sorted(ALLOWED_OPERATORS)))


def _rounding_faults(graph: GraphSummary) -> list[str]:
    """Products whose last bit would depend on the processor."""
    products = [o for o in graph.operators if o.name == "FULLY_CONNECTED"]
    weights = [o.inputs[1] if len(o.inputs) > 1 else -1 for o in products]
    shapes = [graph.tensors[index].shape if index >= 0 else () for index in weights]
    small = [shape for shape in shapes if not _is_large(shape)]
    if not small:
        return []
    return [
        f"{len(small)} FULLY_CONNECTED have less than {FEWEST_OUTPUTS} outputs or "
        f"{FEWEST_INPUTS} inputs (first: {list(small[0][:4])}), and x86-64 and Arm round these "
        "differently: pad their weights with zeros"
    ]


def _is_large(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[0] >= FEWEST_OUTPUTS and shape[1] >= FEWEST_INPUTS


def _signature_faults(graph: GraphSummary) -> list[str]:
    layers = min(layer_count(graph.inputs), MOST_LAYERS)
    inputs, outputs = signature(layers, "logit" in graph.outputs)
    faults = []
    if not outputs:
        faults.append("neither a gate nor a GRU: not a gruard step")
    for side, wanted, found in (
        ("inputs", inputs, set(graph.inputs)),
        ("outputs", outputs, set(graph.outputs)),
    ):
        if wanted != found:
            faults.append(
                f"signature {side} differ: missing {_listed(wanted - found)}, "
                f"unknown {_listed(found - wanted)}: not a gruard step"
            )
    for name, index in {**graph.inputs, **graph.outputs}.items():
        tensor = graph.tensors[index]
        one_scale = len(tensor.scales) == len(tensor.zero_points) == 1
        if tensor.dtype != "int8" or not one_scale or not _is_row(tensor.shape):
            faults.append(f"tensor {name[:60]} is not a [1, n] int8 tensor with one scale")
    return faults


def _listed(names: set[str]) -> list[str]:
    """The first of them; there may be thousands in a foreign file."""
    return [name[:60] for name in sorted(names)[:20]]


def signature(gru_layers: int, gated: bool) -> tuple[set[str], set[str]]:
    """Names of the inputs and outputs of a step with so many recurrent layers."""
    inputs, outputs = set[str](), set[str]()
    if gated:
        inputs, outputs = inputs.union(GATE_INPUTS), outputs.union(GATE_OUTPUTS)
    if gru_layers:
        inputs, outputs = inputs.union(GRU_INPUTS), outputs.union(GRU_OUTPUTS)
    layers = range(gru_layers)
    inputs |= {f"state_{i}" for i in layers}
    return inputs, outputs | {f"{part}_{i}" for part in ("update", "candidate") for i in layers}


def _is_row(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[0] == 1 and shape[1] >= 1


def layer_count(inputs: dict[str, int]) -> int:
    """Number of recurrent layers, from the state inputs' names."""
    return sum(name.startswith("state_") for name in inputs)
