"""What the process tests share: one tiny dataset, one set of folders, one finished run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import start_chromium
from helpers import SMALL, CommandLine, write_dataset
from playwright.sync_api import Browser

LONGEST = ("tune", "compare", "processes", "hostile", "map", "encoders", "runs", "ddp")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    "Begin with the files that take longest, so that both processes end together."
    begun = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: begun.get(item.path.name, len(begun)))


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    return CommandLine(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("datasets"), "tiny")


@pytest.fixture(scope="session")
def finished(cli: CommandLine, dataset: Path) -> Path:
    "A finished run of the optical model on the first fold."
    cli("run", dataset, "--modality", "optical", "--fold", 0, *SMALL)
    return cli.runs / "tiny/optical/fold-0"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with start_chromium() as browser:
        yield browser
