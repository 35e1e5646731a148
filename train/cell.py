"""AnomalyGatedGRU: one set of weights, run as a whole sequence or as one step.

The step follows the runtime's notation (`edge_runtime.detector.cell`): reading x, mask m,
forecast mu, innovation e = x - mu, its clean scale s, evidence e/s, gate g, state h. With FC a
learned linear map:

    q  = relu(FC(evidence) + FC(|evidence|) + FC(difference) + FC(m) + FC(g_previous) + FC(h))
    l  = FC(q), through `gate_layers` of relu layers;   g = (m - k) + k logistic(l)
    u  = mu + g e;   GRU (Cho et al. 2014, reset after the recurrent map) on (u, g evidence, g)
    d  = FC(h'), through `head_layers` of relu layers;   next mu = highway(u, ...) + s d

k is the mask without the gates that are held open (exogenous channels, re-synchronisation), so that
g is open there whatever the logit says. d starts at zero: the untrained model is the linear one.
"""

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from edge_runtime.bundle.graph_rules import FEWEST_INPUTS, FEWEST_OUTPUTS
from edge_runtime.detector.cell import (
    EVIDENCE_CLIP,
    GRAPH_FORECAST_CLIP,
    GRAPH_INNOVATION_CLIP,
    INNOVATION_CLIP,
)
from edge_runtime.detector.linear import FORECAST_CLIP
from edge_runtime.learning.highway import Highway
from train.cell_config import CellConfig

Float32 = npt.NDArray[np.float32]
# Tensors [batch, n] to be concatenated; those within one group share a range.
Groups = Sequence[Sequence[tf.Tensor]]
# linear(groups, kernel, bias, outputs): FC over all tensors of the groups, split in equal outputs.
Linear = Callable[[Groups, tf.Tensor, tf.Tensor, int], list[tf.Tensor]]


def fused_linear(
    groups: Groups, kernel: tf.Tensor, bias: tf.Tensor, outputs: int
) -> list[tf.Tensor]:
    """Compute one matrix product over all groups: the fewest operations, for training."""
    total = tf.matmul(_joined([part for group in groups for part in group]), kernel) + bias
    return tf.split(total, outputs, 1) if outputs > 1 else [total]


def split_linear(
    groups: Groups, kernel: tf.Tensor, bias: tf.Tensor, outputs: int
) -> list[tf.Tensor]:
    """Compute one product per group and output and add them up, for int8.

    A concatenation gives all its parts one scale. Within a group the ranges are equal, so that
    costs nothing and saves the rounding of a sum; across groups the smaller range would lose
    resolution. Products so small that platforms round them differently are padded with zeros.
    """
    width = kernel.shape[1] // outputs
    results = []
    for column in range(0, kernel.shape[1], width):
        row, products = 0, []
        for group in groups:
            joined = _joined(group)
            block = kernel[row : row + joined.shape[1], column : column + width]
            products.append(_padded_product(joined, block))
            row += joined.shape[1]
        # The first product carries the bias, as a FULLY_CONNECTED does.
        total = products[0] + _padded(bias[column : column + width], 0, FEWEST_OUTPUTS)
        for product in products[1:]:
            total = total + product
        narrow = width < FEWEST_OUTPUTS
        results.append(tf.slice(total, [0, 0], [total.shape[0], width]) if narrow else total)
    return results


def _padded_product(values: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Multiply values [batch, n] with kernel [n, m]; zero columns may follow the m columns."""
    kernel = _padded(_padded(kernel, 0, FEWEST_INPUTS), 1, FEWEST_OUTPUTS)
    return tf.matmul(_padded(values, 1, FEWEST_INPUTS), kernel)


def _padded(tensor: tf.Tensor, axis: int, least: int) -> tf.Tensor:
    """Append zeros to `tensor` along `axis` until it has `least` entries."""
    shape = list(tensor.shape)
    shape[axis] = least - shape[axis]
    return tf.concat([tensor, tf.zeros(shape)], axis) if shape[axis] > 0 else tensor


def _joined(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.concat(parts, 1) if len(parts) > 1 else parts[0]


def cell_step(
    weights: Mapping[str, tf.Tensor],
    config: CellConfig,
    inputs: Mapping[str, tf.Tensor],
    linear: Linear,
) -> dict[str, tf.Tensor]:
    """Build the graph of one step: the runtime's named inputs [batch, n] to its named outputs.

    Outputs with a gate: logit, gate_next; with a GRU: correction, and update_i, candidate_i,
    state_i per recurrent layer.
    """
    outputs = gate_step(weights, config, inputs, linear)
    trust = outputs["gate_next"] if config.gate_layers else inputs["mask"]
    return outputs | gru_step(weights, config, inputs, trust, linear)


def gate_step(
    weights: Mapping[str, tf.Tensor],
    config: CellConfig,
    inputs: Mapping[str, tf.Tensor],
    linear: Linear,
) -> dict[str, tf.Tensor]:
    """Build the gate of `cell_step`: logit and gate_next [batch, channels]; {} without a gate."""
    if not config.gate_layers:
        return {}
    layer = _layers(weights, linear)
    names = ("evidence", "magnitude", "difference", "mask", "gate")
    states = [inputs[f"state_{i}"] for i in range(config.gru_layers)]
    # All of these lie within ±1.
    hidden = tf.nn.relu(layer([[*(inputs[name] for name in names), *states]], "gate_0")[0])
    for i in range(1, config.gate_layers):
        hidden = tf.nn.relu(layer([[hidden]], f"gate_{i}")[0])
    logit = layer([[hidden]], "logit")[0]
    guarded = inputs["guarded"]
    gate = (inputs["mask"] - guarded) + guarded * tf.sigmoid(logit)
    return {"logit": logit, "gate_next": gate}


def gru_step(
    weights: Mapping[str, tf.Tensor],
    config: CellConfig,
    inputs: Mapping[str, tf.Tensor],
    trust: tf.Tensor,
    linear: Linear,
) -> dict[str, tf.Tensor]:
    """Build the GRU of `cell_step`; {} without a GRU.

    trust: [batch, channels], the share of each innovation that it is fed, between 0 and 1.
    """
    outputs: dict[str, tf.Tensor] = {}
    if not config.gru_layers:
        return outputs
    layer = _layers(weights, linear)
    trusted = inputs["forecast"] + trust * inputs["innovation"]
    # The trusted reading has a wider range; the rest, and every state, lies within ±1.
    signal = [[trusted], [trust * inputs["evidence"], trust]]
    for i in range(config.gru_layers):
        state = inputs[f"state_{i}"]
        with_state = [*signal[:-1], [*signal[-1], state]]
        update, reset = (tf.sigmoid(v) for v in layer(with_state, f"gru_{i}", 2))
        recurrent = layer([[state]], f"recurrent_{i}")[0]
        candidate = tf.tanh(layer(signal, f"candidate_{i}")[0] + reset * recurrent)
        following = candidate + update * (state - candidate)
        outputs |= {f"update_{i}": update, f"candidate_{i}": candidate, f"state_{i}": following}
        signal = [[following]]
    for i in range(config.head_layers):
        signal = [[tf.nn.relu(layer(signal, f"head_{i}")[0])]]
    outputs["correction"] = layer(signal, "correction")[0]
    return outputs


def _layers(weights: Mapping[str, tf.Tensor], linear: Linear) -> Callable[..., list[tf.Tensor]]:
    """Return layer(groups, name, outputs=1), which calls `linear` with the weights of that name."""

    def layer(groups: Groups, name: str, outputs: int = 1) -> list[tf.Tensor]:
        return linear(groups, weights[f"{name}_kernel"], weights[f"{name}_bias"], outputs)

    return layer


def weight_shapes(config: CellConfig) -> dict[str, tuple[int, int]]:
    """Return kernel shapes (inputs, outputs) by layer name; each layer has a bias [outputs]."""
    c, h, g = config.channels, config.gru_units, config.gate_units
    shapes: dict[str, tuple[int, int]] = {}
    if config.gate_layers:
        shapes["gate_0"] = (5 * c + config.gru_layers * h, g)
        shapes |= {f"gate_{i}": (g, g) for i in range(1, config.gate_layers)}
        shapes["logit"] = (g, c)
    for i in range(config.gru_layers):
        width = 3 * c if i == 0 else h
        shapes[f"gru_{i}"] = (width + h, 2 * h)
        shapes[f"candidate_{i}"] = (width, h)
        shapes[f"recurrent_{i}"] = (h, h)
    if config.gru_layers:
        shapes |= {f"head_{i}": (h, h) for i in range(config.head_layers)}
        shapes["correction"] = (h, c)
    return shapes


def _initial(
    name: str,
    shape: tuple[int, int],
    rng: np.random.Generator,
    channels: int,
    still: npt.NDArray[np.int_],
) -> tuple[Float32, Float32]:
    kernel = rng.normal(0, 1 / np.sqrt(shape[0]), shape)
    bias = np.zeros(shape[1])
    if name == "correction":
        kernel = np.zeros(shape)  # start as the linear forecaster
    elif name == "logit":
        bias += 2.0  # start with open gates
    elif name.startswith("gru_"):
        bias[: shape[1] // 2] = 1.0  # start with a slow update: z near one keeps the state
    # Blocks of rows per channel: evidence, magnitude, difference; or trusted reading and evidence.
    for block in range({"gate_0": 3, "gru_0": 2, "candidate_0": 2}.get(name, 0)):
        kernel[block * channels + still] = 0.0
    return kernel.astype(np.float32), bias.astype(np.float32)


class AnomalyGatedGRU(keras.layers.Layer):
    """The trainable model around `cell_step`.

    config: sizes. innovation_scale, gated: float32 [channels], gated 0 where the gate never closes.
    moving: bool [channels], False for a channel that is constant in training: its effect on the
    forecast cannot be learned, so its weights start at zero instead of at random.
    """

    def __init__(
        self,
        config: CellConfig,
        highway: Highway,
        innovation_scale: Float32,
        gated: Float32,
        seed: int = 0,
        moving: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.highway = config, highway
        self.innovation_scale, self.gated = innovation_scale, gated
        rng = np.random.default_rng(seed)
        self.kernels: dict[str, keras.Variable] = {}
        still = np.zeros(0, int) if moving is None else np.flatnonzero(~moving)
        for name, shape in weight_shapes(config).items():
            for part, value in zip(
                ("kernel", "bias"), _initial(name, shape, rng, config.channels, still), strict=True
            ):
                self.kernels[f"{name}_{part}"] = self.add_weight(
                    name=f"{name}_{part}",
                    shape=value.shape,
                    initializer=keras.initializers.Constant(value),
                )
        self.built = True

    def tensors(self) -> dict[str, tf.Tensor]:
        """Return the weights as tensors by name."""
        return {name: tf.convert_to_tensor(v.value) for name, v in self.kernels.items()}

    def arrays(self) -> dict[str, Float32]:
        """Return the weights as arrays by name, for saving."""
        return {name: np.asarray(v.value) for name, v in self.kernels.items()}

    def assign(self, arrays: Mapping[str, Float32]) -> None:
        """Set the weights from arrays by name."""
        for name, variable in self.kernels.items():
            variable.assign(arrays[name])

    def call(
        self, values: tf.Tensor, mask: tf.Tensor, state_noise: float = 0.0
    ) -> dict[str, tf.Tensor]:
        """Run whole sequences, with normal noise of deviation `state_noise` added to the states.

        values, mask: float32 [batch, time, channels], values 0 where the mask is 0. Returns
        forecast, gate, logit, trusted [batch, time, channels] and, with a GRU, the top layer's
        state [batch, time, gru_units] and all layers' update gates [batch, time, layers *
        gru_units]. Without a gate, gate is the mask and logit is 0.
        """
        batch, order, channels = tf.shape(values)[0], self.config.order, self.config.channels
        weights = self.tensors()
        highway = tf.constant(self.highway.matrix())
        scale, gated = tf.constant(self.innovation_scale), tf.constant(self.gated)
        times, masks = tf.transpose(values, [1, 0, 2]), tf.transpose(mask, [1, 0, 2])
        differences = _differences(times, masks, scale)
        steps = times.shape[0] or tf.shape(times)[0]
        names = ["forecast", "gate", "logit", "trusted"]
        names += ["state", "update"] if self.config.gru_layers else []
        arrays = {name: tf.TensorArray(tf.float32, steps) for name in names}
        history = tf.tile(times[0], [1, order])
        gate, correction = tf.ones_like(times[0]), tf.zeros_like(times[0])
        states = [tf.zeros([batch, self.config.gru_units]) for _ in range(self.config.gru_layers)]
        # The noise is the same for clean and faulty twins, whose states are compared, and in every
        # training step, so that a resumed training gives the same result.
        shape = (steps, 1, self.config.gru_units)
        noise = state_noise * tf.random.stateless_normal(shape, seed=(0, 0))

        def body(t, history, gate, correction, states, arrays):  # type: ignore[no-untyped-def]
            x, m = times[t], masks[t]
            mu = tf.matmul(history, highway) + scale * correction
            mu = tf.clip_by_value(mu, -FORECAST_CLIP, FORECAST_CLIP)
            difference = x - mu
            evidence = m * tf.clip_by_value(difference / scale, -EVIDENCE_CLIP, EVIDENCE_CLIP)
            evidence = evidence / EVIDENCE_CLIP
            innovation = m * tf.clip_by_value(difference, -INNOVATION_CLIP, INNOVATION_CLIP)
            inputs = {
                "innovation": tf.clip_by_value(
                    innovation, -GRAPH_INNOVATION_CLIP, GRAPH_INNOVATION_CLIP
                ),
                "forecast": tf.clip_by_value(mu, -GRAPH_FORECAST_CLIP, GRAPH_FORECAST_CLIP),
                "evidence": evidence,
                "magnitude": tf.abs(evidence),
                "difference": differences[t],
                "mask": m,
                "guarded": m * gated,
                "gate": gate,
                **{f"state_{i}": state for i, state in enumerate(states)},
            }
            out = gate_step(weights, self.config, inputs, fused_linear)
            gate, logit = m, tf.zeros_like(m)
            if self.config.gate_layers:
                gate, logit = out["gate_next"], out["logit"]
            out |= gru_step(weights, self.config, inputs, gate, fused_linear)
            if states:
                correction = out["correction"]
            trusted = mu + gate * innovation
            states = [out[f"state_{i}"] + noise[t] for i in range(len(states))]
            produced = {"forecast": mu, "gate": gate, "logit": logit, "trusted": trusted}
            if states:
                produced["state"] = states[-1]
                produced["update"] = tf.concat([out[f"update_{i}"] for i in range(len(states))], 1)
            arrays = {name: array.write(t, produced[name]) for name, array in arrays.items()}
            history = tf.concat([trusted, history[:, : (order - 1) * channels]], 1)
            return t + 1, history, gate, correction, states, arrays

        loop = tf.while_loop(
            lambda t, *_: t < steps,
            body,
            (tf.constant(0), history, gate, correction, states, arrays),
            maximum_iterations=steps,
        )
        return {name: tf.transpose(a.stack(), [1, 0, 2]) for name, a in loop[-1].items()}


def _differences(times: tf.Tensor, masks: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Return scaled changes since the previous sample [time, batch, channels]; 0 at gaps."""
    moved = tf.clip_by_value((times[1:] - times[:-1]) / scale, -EVIDENCE_CLIP, EVIDENCE_CLIP)
    moved = moved * masks[1:] * masks[:-1] / EVIDENCE_CLIP
    return tf.concat([tf.zeros_like(times[:1]), moved], 0)
