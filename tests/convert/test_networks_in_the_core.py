"""The C core runs whatever shape the exporter writes, and gives the reference's bits."""

import pytest
from made_steps import name_of, network, spread

from tests.edge_runtime import native_core, native_models  # noqa: F401
from train.cell_config import CellConfig


@pytest.mark.long
@pytest.mark.parametrize("config", spread(24), ids=name_of)
def test_networks_from_all_over(config: CellConfig) -> None:
    bundle = native_models.recurrent(
        network(config), config.channels, rules=True, diagnosis=config.channels <= 32
    )
    rows = native_models.faulty_rows(bundle, 500, seed=1)
    native_models.check(bundle, rows)
