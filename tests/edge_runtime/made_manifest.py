"""A manifest made by hand, so neutral that a test can work out what must come."""

from edge_runtime import numerics
from edge_runtime.bundle import manifest as m

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
CROSS = ((0.0, 0.25, 0.0), (0.5, 0.0, 0.0), (0.0, -0.125, 0.0))
OWN = ((0.5, 0.75, 0.25),)
AHEAD = ((0.5, 0.0, 0.0), (0.25, 0.5, 0.0), (0.0, -0.25, 0.75))
NAMES = ("demand", "flow", "heat")
BOUNDS = m.Tiers(
    closed_limit=48,
    lost_limit=16,
    contradiction_limit=8,
    free_run_limit=16,
    resync_channel=8,
    resync_all=24,
    window=600,
    hour=3600,
    warmup=100,
    frozen_limit=32,
    saturated_limit=0.2,
    agree=100,
    bridge=8,
)


def channel(name: str, exogenous: bool = False, **rules: float) -> m.Channel:
    """A channel whose raw units are the standardised ones."""
    nothing: dict[str, float | None] = {
        "low": None, "high": None, "max_rate": None, "stuck_after": None
    }  # fmt: skip
    return m.Channel(name, "", 0.0, 1.0, **(nothing | rules), exogenous=exogenous)  # type: ignore[arg-type]


def made_manifest(**changes: object) -> m.Manifest:
    """Three channels, the first exogenous; `changes` replace whole fields."""
    tensor = m.Tensor((1, 3), "int8", 0.0078125, 0)
    ones, zeros = (1.0,) * 3, (0.0,) * 3
    whole = {
        "schema": m.SCHEMA,
        "name": "made",
        "version": 1,
        "period": 0.5,
        "channels": (channel(NAMES[0], exogenous=True), channel(NAMES[1]), channel(NAMES[2])),
        "inputs": {"mask": tensor},
        "outputs": {"logit": tensor},
        "forecast": m.Forecast(((1.0, 1.0, 1.0),), CROSS, ones, OWN, AHEAD, horizon=2),
        "score": m.Score(
            weights=(1.0, 1.0, 1.0, 0.5, 0.5, 0.5),
            memories=(m.Memory(0.2, 0.1, (1e30,) * 6, (0.0,) * 6, (1.0,) * 6),),
            error_scale=(ones,) * 3,
            absent=(ones,) * 3,
            residual_mean=zeros,
            evidence_mean=zeros,
            level_mean=zeros,
            distance_root=IDENTITY,
            level_root=IDENTITY,
        ),
        "alarm": m.AlarmRule(m=2, n=3, clear_after=10),
        "tiers": BOUNDS,
        "fallback": m.FallbackLimits(
            smoothing=0.1,
            slack=1.0,
            range=(4.0,) * 3,
            level=(2.0,) * 3,
            change=(3.0,) * 3,
            cusum=(20.0,) * 3,
            same=(32.0,) * 3,
            missing=(48.0,) * 3,
        ),
        "thresholds": {
            "tflite-builtin": m.Threshold(
                5.0, 4.0, 1.0, "by hand", 1.0, 1.0, 0, 3.0, False, 2.0, "no promise"
            )
        },
        "tables": m.Tables(
            tuple(map(float, numerics.softplus_table(0.0625, 0))),
            tuple(map(float, numerics.log_table())),
        ),
        "validation": m.Validation(passed=True, forced=False),
        "provenance": m.Provenance("0" * 64, "1" * 64, 0, {"linear": 0.5}, {"numpy": "1"}),
        "members": {"model.tflite": "2" * 64},
        "proof": {"report.html": "3" * 64},
    }
    return m.Manifest(**(whole | changes))  # type: ignore[arg-type]
