"""What the process tests share: one tiny dataset, one set of folders, one finished run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import start_chromium
from helpers import SMALL, CommandLine, write_dataset
from playwright.sync_api import Browser


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
