"""Tests of the device run where no workstation is: its packages cannot be imported.

That is so in a process that runs only tests of this folder. Where tests of other folders run in the
same process, test_imports.py still sees to it that no test here names such a package.
"""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WORKSTATION = ("tensorflow", "keras", "scipy", "matplotlib", "train", "convert", "fleet", "dask")


class Refusing:
    """A finder that refuses the workstation's packages."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] in WORKSTATION:
            raise ModuleNotFoundError(f"a test of the device needs {name}, which no device has")


def only_the_device(config: pytest.Config) -> bool:
    """Whether all tests that this run was asked for are in this folder."""
    folder = config.invocation_params.dir
    return all((folder / word.split("::")[0]).is_relative_to(HERE) for word in config.args)


def refuse_the_workstation() -> None:
    sys.meta_path.insert(0, Refusing())
