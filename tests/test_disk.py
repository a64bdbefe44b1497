"""A full disk is a sentence, and nothing half-written is taken for whole."""

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import SMALL, CommandLine


@pytest.fixture
def fresh(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "home")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    "A file system of 8 MB, where this process may mount one."
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def limit_files(size: int) -> None:
    "Let no file grow beyond `size` bytes, as a quota does."
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_no_room_for_the_store(fresh: CommandLine, dataset: Path):
    words = ("run", dataset, "--modality", "optical", *SMALL)
    told = fresh(*words, status=1, before=lambda: limit_files(100_000)).text
    assert "disk" in told
    assert not list(fresh.data.glob("stores/*/store.json"))


def test_no_room_for_the_checkpoint(fresh: CommandLine, dataset: Path):
    words = ("run", dataset, "--modality", "optical", *SMALL)
    told = fresh(*words, status=1, before=lambda: limit_files(20_000_000)).text
    assert "disk" in told
    assert not (fresh.runs / "tiny/optical/fold-0").exists()
    fresh(*words)  # with room, the same command does it
    assert (fresh.runs / "tiny/optical/fold-0/metrics.json").exists()


def test_a_full_file_system(fresh: CommandLine, dataset: Path, small_disk: Path):
    fresh.env["ASM_RUNS"] = str(small_disk)
    told = fresh("run", dataset, "--modality", "optical", *SMALL, status=1).text
    assert "disk" in told
    assert not (small_disk / "tiny/optical/fold-0").exists()
