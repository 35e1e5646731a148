"""The training loss, on pairs of a clean window and the same window with faults.

The forecast is always trained toward the clean signal. The gate is trained toward the injected
labels, where the fault is visible at all. The state is trained toward the state of the clean twin,
so that a fault does not spoil it; a model without a gate cannot keep a fault out and skips this.

A batch may add windows of labelled stretches. Their labels say when something was wrong, not in
which channel, so the gate solves a multiple-instance problem: on a labelled row at least one gate
must close, on any other row all gates must be open. The forecast is not judged on labelled rows,
because its target is unknown there.
"""

import math
from collections.abc import Mapping

import tensorflow as tf

from train.batches import BURN_IN
from train.cell import AnomalyGatedGRU

# About four int8 steps of the state: the model learns dynamics that forgive rounding instead of
# amplifying it over thousands of steps.
STATE_NOISE = 0.03
HUBER = 2.0  # innovations beyond this many scales count linearly
DETECTABLE = 2.0  # innovation scales; a smaller deviation is no visible fault
GATE_WEIGHT, STATE_WEIGHT, TRUST_WEIGHT = 2.0, 2.0, 0.05
# An int8 update gate has steps of 1/256. If a state were renewed by less than a few of them per
# sample, its memory would be much longer or shorter than that of its float twin.
LONGEST_MEMORY = 25.0  # samples: 1 / (1 - update)
MEMORY_WEIGHT = 0.3
SMALLEST_RENEWAL = 1e-6
# Beyond this logit a gate is fully open or closed; a wider range would only make the int8 steps
# coarser.
LARGEST_LOGIT = 6.0
FAULT_WEIGHT = 5.0  # a missed fault costs as much as five false closings
# A gate that stays shut after its fault costs as much as a missed fault. The forecast behind a shut
# gate wanders; if the gate then mistakes the healthy reading for a fault, nothing opens it again.
AFTER_WEIGHT = 5.0
LABELLED_WEIGHT = 0.8  # of the gate's loss on a labelled window, relative to that on a pair
SMALLEST_DOUBT = 1e-30  # limits the loss of a labelled row on which all gates are open


def losses(model: AnomalyGatedGRU, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return scalar losses of one batch: total, forecast, gate, state, and labelled if present.

    batch: clean, clean_mask, faulty, faulty_mask, fault [windows, time, channels]; with labelled
    stretches also labelled, labelled_mask [others, time, channels] and label [others, time].
    float32; masks, fault and label are 0 or 1, readings are 0 where their mask is 0.
    """
    kinds = ["clean", "faulty", *(["labelled"] if "labelled" in batch else [])]
    values = tf.concat([batch[kind] for kind in kinds], 0)
    masks = tf.concat([batch[f"{kind}_mask"] for kind in kinds], 0)
    out = {
        name: value[:, BURN_IN:]
        for name, value in model(values, masks, state_noise=STATE_NOISE).items()
    }
    batch = {name: value[:, BURN_IN:] for name, value in batch.items()}
    targets, weights = [batch["clean"]] * 2, [batch["clean_mask"]] * 2
    if "labelled" in batch:
        targets.append(batch["labelled"])
        weights.append(batch["labelled_mask"] * (1 - batch["label"][..., tf.newaxis]))
    scale = tf.constant(model.innovation_scale)
    target, weight = tf.concat(targets, 0), tf.concat(weights, 0)
    forecast = _mean(_huber((target - out["forecast"]) / scale), weight)
    trust = _mean(tf.minimum(tf.abs(target - out["trusted"]) / scale, 30.0), weight)
    twins = 2 * batch["clean"].shape[0]
    gate = state = memory = tf.zeros(())
    if model.config.gru_layers:
        memory = _memory_loss(out["update"])
    if model.config.gate_layers:
        gate = _gate_loss(model, batch, out["logit"][:twins])
        if model.config.gru_layers:
            clean_state, faulty_state = tf.split(out["state"][:twins], 2, 0)
            state = tf.reduce_mean((faulty_state - tf.stop_gradient(clean_state)) ** 2)
    total = forecast + GATE_WEIGHT * gate + STATE_WEIGHT * state + TRUST_WEIGHT * trust
    total += MEMORY_WEIGHT * memory + _excess_loss(out["logit"])
    result = {"total": total, "forecast": forecast, "gate": gate, "state": state}
    if "labelled" in batch:
        result["labelled"] = _labelled_loss(model, batch, out["logit"][twins:])
        share = batch["label"].shape[0] / batch["clean"].shape[0]
        result["total"] += GATE_WEIGHT * LABELLED_WEIGHT * share * result["labelled"]
    return result


def _excess_loss(logit: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.relu(tf.abs(logit) - LARGEST_LOGIT) ** 2)


def _memory_loss(update: tf.Tensor) -> tf.Tensor:
    """Return by how much update gates exceed the longest memory, in logarithms of the memory."""
    memory = -tf.math.log(tf.maximum(1 - update, SMALLEST_RENEWAL))
    return tf.reduce_mean(tf.nn.relu(memory - math.log(LONGEST_MEMORY)))


def _gate_loss(
    model: AnomalyGatedGRU, batch: Mapping[str, tf.Tensor], logit: tf.Tensor
) -> tf.Tensor:
    fault = batch["fault"]
    deviation = tf.abs(batch["faulty"] - batch["clean"]) / model.innovation_scale
    visible = tf.cast(deviation >= DETECTABLE, tf.float32)
    after = tf.minimum(tf.cumsum(fault, 1), 1.0)  # the channel has, or had, a fault
    weight = fault * visible * FAULT_WEIGHT + (1 - fault) * (1 + (AFTER_WEIGHT - 1) * after)
    weight *= batch["faulty_mask"]
    labels = tf.concat([tf.zeros_like(fault), fault], 0)
    weights = tf.concat([batch["clean_mask"], weight], 0) * model.gated
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=1 - labels, logits=logit)
    return _mean(entropy, weights)


def _labelled_loss(
    model: AnomalyGatedGRU, batch: Mapping[str, tf.Tensor], logit: tf.Tensor
) -> tf.Tensor:
    """-log P(not all gates are open) on labelled rows, -log P(open) of each gate on the others.

    P(all open) = prod_i logistic(l_i) over the watched channels i. Every window has the same
    weight, whatever its number of labelled rows, so that long events do not dominate short ones.
    """
    label, mask = batch["label"], batch["labelled_mask"]
    closing = tf.nn.softplus(-logit) * model.gated  # -log logistic(l)
    others = _mean(closing, mask * model.gated * (1 - label[..., tf.newaxis]))
    doubt = tf.maximum(tf.reduce_sum(closing, 2), SMALLEST_DOUBT)
    missed = -tf.math.log(-tf.math.expm1(-doubt))
    # A missing reading closes its gate, so no other gate needs to close on that row.
    complete = tf.reduce_min(1 - model.gated * (1 - mask), 2)
    rows = tf.reduce_sum(label * complete, 1)
    each = tf.reduce_sum(missed * label * complete, 1) / tf.maximum(rows, 1.0)
    return others + _mean(each, tf.cast(rows > 0, tf.float32))


def _huber(error: tf.Tensor) -> tf.Tensor:
    size = tf.abs(error)
    return tf.where(size < HUBER, 0.5 * error**2, HUBER * (size - 0.5 * HUBER))


def _mean(values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(values * weight) / tf.maximum(tf.reduce_sum(weight), 1.0)
