"""What training asks of the model, on pairs of a clean window and the same window with faults.

The forecast is always trained toward the clean signal; the gate toward the injected labels, where
the fault can be told from the signal at all; the state toward the state of the clean twin, so that
a fault cannot poison it. A model without a gate cannot keep a fault out and is not asked to.
"""

from collections.abc import Mapping

import tensorflow as tf

from train.cell import AnomalyGatedGRU

BURN_IN = 16  # steps at the start of a window that do not count: the state starts from nothing
# About four int8 steps of the state: the model learns dynamics that forgive rounding instead of
# amplifying it over thousands of steps.
STATE_NOISE = 0.03
HUBER = 2.0  # innovations beyond this many scales count linearly
DETECTABLE = 2.0  # a deviation below this many innovation scales is not a fault one could see
GATE_WEIGHT, STATE_WEIGHT, TRUST_WEIGHT = 2.0, 2.0, 0.05
FAULT_WEIGHT = 5.0  # a missed fault costs as much as five false closings


def losses(model: AnomalyGatedGRU, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Scalar losses `total`, `forecast`, `gate`, `state` of one batch.

    batch: clean, clean_mask, faulty, faulty_mask, fault [windows, time, channels]; float32, masks
    and fault are 0 or 1, readings are 0 where their mask is 0.
    """
    values = tf.concat([batch["clean"], batch["faulty"]], 0)
    masks = tf.concat([batch["clean_mask"], batch["faulty_mask"]], 0)
    out = {
        name: value[:, BURN_IN:]
        for name, value in model(values, masks, state_noise=STATE_NOISE).items()
    }
    known, clean = batch["clean_mask"][:, BURN_IN:], batch["clean"][:, BURN_IN:]
    scale = tf.constant(model.innovation_scale)
    target, weight = tf.concat([clean, clean], 0), tf.concat([known, known], 0)
    forecast = _mean(_huber((target - out["forecast"]) / scale), weight)
    trust = _mean(tf.minimum(tf.abs(target - out["trusted"]) / scale, 30.0), weight)
    gate = state = tf.zeros(())
    if model.config.gate_layers:
        gate = _gate_loss(model, batch, out["logit"])
        if model.config.gru_layers:
            clean_state, faulty_state = tf.split(out["state"], 2, 0)
            state = tf.reduce_mean((faulty_state - tf.stop_gradient(clean_state)) ** 2)
    total = forecast + GATE_WEIGHT * gate + STATE_WEIGHT * state + TRUST_WEIGHT * trust
    return {"total": total, "forecast": forecast, "gate": gate, "state": state}


def _gate_loss(
    model: AnomalyGatedGRU, batch: Mapping[str, tf.Tensor], logit: tf.Tensor
) -> tf.Tensor:
    fault = batch["fault"][:, BURN_IN:]
    deviation = tf.abs(batch["faulty"] - batch["clean"])[:, BURN_IN:] / model.innovation_scale
    visible = tf.cast(deviation >= DETECTABLE, tf.float32)
    weight = fault * visible * FAULT_WEIGHT + (1 - fault)
    weight *= batch["faulty_mask"][:, BURN_IN:]
    labels = tf.concat([tf.zeros_like(fault), fault], 0)
    weights = tf.concat([batch["clean_mask"][:, BURN_IN:], weight], 0) * model.gated
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=1 - labels, logits=logit)
    return _mean(entropy, weights)


def _huber(error: tf.Tensor) -> tf.Tensor:
    size = tf.abs(error)
    return tf.where(size < HUBER, 0.5 * error**2, HUBER * (size - 0.5 * HUBER))


def _mean(values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(values * weight) / tf.maximum(tf.reduce_sum(weight), 1.0)
