"""Steps of all sizes that train accepts, with weights and inputs, without a training."""

import numpy as np

from edge_runtime.learning.highway import Highway
from train.cell import AnomalyGatedGRU
from train.cell_config import CellConfig

Inputs = dict[str, np.ndarray]


def weights_of(config: CellConfig) -> dict[str, np.ndarray]:
    """Weights of a trained size: what training starts from, moved a little everywhere."""
    rng = np.random.default_rng(1)
    ones = np.ones(config.channels, np.float32)
    highway = Highway(np.ones((config.order, config.channels), "f4"), np.zeros((0, 0), "f4"))
    model = AnomalyGatedGRU(config, highway, ones, ones)
    return {
        name: (value + rng.normal(0, 0.1, value.shape)).astype(np.float32)
        for name, value in model.arrays().items()
    }


def inputs_of(config: CellConfig, count: int = 120) -> list[Inputs]:
    """What the host feeds, within its bounds: also what this graph has no use for."""
    rng = np.random.default_rng(2)
    samples = []
    for _ in range(count):
        widths = dict.fromkeys(
            ("evidence", "innovation", "forecast", "difference"), config.channels
        )
        widths |= {f"state_{i}": config.gru_units for i in range(config.gru_layers)}
        sample = {name: rng.uniform(-1, 1, width) for name, width in widths.items()}
        sample["magnitude"] = np.abs(sample["evidence"])
        sample["mask"] = (rng.random(config.channels) > 0.2).astype(float)
        sample["guarded"] = sample["mask"] * (rng.random(config.channels) > 0.1)
        sample["gate"] = rng.random(config.channels)
        samples.append({name: value.astype(np.float32) for name, value in sample.items()})
    return samples


def network(config: CellConfig) -> bytes:
    """The int8 graph of a network with `weights_of(config)`."""
    from convert.export import export_int8

    return export_int8(weights_of(config), config, inputs_of(config, 40))


def spread(count: int) -> list[CellConfig]:
    """Shapes from all over what train accepts: 1–64 channels, 1–3 layers of 8–128 units."""
    rng = np.random.default_rng(11)
    corners = [
        CellConfig(channels=64, gru_layers=3, gru_units=128, gate_layers=3, head_layers=3),
        CellConfig(channels=64, gru_layers=1, gru_units=8, gate_layers=1, head_layers=0),
        CellConfig(channels=1, gru_layers=3, gru_units=128, gate_layers=3, head_layers=3),
    ]
    drawn = [
        CellConfig(
            channels=int(rng.integers(1, 65)),
            gru_layers=int(rng.integers(1, 4)),
            gru_units=int(rng.choice([8, 16, 24, 32, 48, 64, 96, 128])),
            gate_layers=int(rng.integers(1, 4)),
            gate_units=int(rng.choice([8, 16, 32, 64])),
            head_layers=int(rng.integers(0, 4)),
        )
        for _ in range(count - len(corners))
    ]
    return corners + drawn


def name_of(config: CellConfig) -> str:
    gru = f"{config.gru_layers}x{config.gru_units}"
    return f"{config.channels}ch-gru{gru}-gate{config.gate_layers}-head{config.head_layers}"
