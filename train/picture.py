"""Learning curves as a picture."""

import io
from pathlib import Path

from train.run_folder import write_atomically


def draw_learning(history: list[dict[str, float]], path: Path) -> None:
    """One panel per validation loss over steps; the dashed line is the linear forecaster."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    steps = [entry["step"] for entry in history]
    titles = {
        "forecast": "forecast error (clean target)",
        "gate": "gate (cross-entropy)",
        "state": "state spoiled by faults",
    }
    for axis, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        values = [entry[name] for entry in history]
        axis.plot(steps, values, marker="o", markersize=3, color="#1f6f8b")
        if name == "forecast":
            axis.axhline(values[0], linestyle="--", color="#999999", label="linear highway alone")
            axis.legend(frameon=False, fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("training step")
        axis.set_ylim(bottom=0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
