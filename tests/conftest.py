"""Settings of the whole test run; see `make test`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest
from runs import Answer

from mlmkit.cli import main

# Not the variable MPLBACKEND: the kernels of the notebooks would inherit it and draw no pictures.
matplotlib.use("agg")


def pytest_configure(config: pytest.Config) -> None:
    """Measure coverage of the unit tests only: in the kernels of the notebooks nbval would slow them down."""
    if getattr(config.option, "cov_source", None):
        config.option.cov_source = None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first, then the notebooks, then what is marked `slow`."""

    def rank(item: pytest.Item) -> int:
        if item.get_closest_marker("slow"):
            return 2
        return 1 if item.path.suffix == ".ipynb" else 0

    items.sort(key=rank)


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run a command of mlmkit in this process."""

    def called(*arguments: str | Path) -> Answer:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Answer(code, *capfd.readouterr())

    return called
