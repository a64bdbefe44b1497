"""Nothing outlives a command, however it ends, and what it waits for is told."""

import contextlib
import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import SMALL, CommandLine, Process, finish, processes_of, wait_for, wait_until_gone

TWO = ("--modalities", "sar,optical", "--jobs", 2, "--name", "ended")


def weights(run: Path) -> str:
    return json.loads((run / "provenance.json").read_text())["weights"]


def begin(cli: CommandLine, count: int, *words: object) -> Process:
    "Start a command and wait until its processes are so many, all beyond their guards."
    process = cli.start(*words)

    def work() -> bool:
        return sum("PDEATHSIG" not in one for one in processes_of(cli.mark).values()) >= count

    wait_for(work, process)
    return process


def end(cli: CommandLine, process: Process, how: int, *, everyone: bool = False) -> None:
    "Send a signal to a command, or to all its processes as SLURM does; nothing is left soon."
    for number in processes_of(cli.mark) if everyone else [process.pid]:
        os.kill(number, how)
    wait_until_gone(cli.mark)
    if how == signal.SIGKILL:
        process.communicate()
    else:
        assert "stopped; the same command goes on" in finish(process, 128 + how).text


def test_a_comparison_ends_with_all_its_processes_and_goes_on(cli: CommandLine, dataset: Path):
    alike = ("-p", "threads", 1, *SMALL)
    cli("run", dataset, "--modality", "optical", "--name", "alone", *alike)
    words = ("compare", dataset, *TWO, *alike)
    partial = cli.runs / "ended/optical/fold-0_partial/run.ipynb"
    for how, everyone in ((signal.SIGKILL, False), (signal.SIGTERM, True)):
        process = begin(cli, 5, *words)  # itself, two workers, two kernels
        wait_for(partial.exists, process)
        end(cli, process, how, everyone=everyone)
    told = cli(*words).text
    assert "FAILED" not in told
    ended, alone = (cli.runs / name / "optical/fold-0" for name in ("ended", "alone"))
    assert weights(ended) == weights(alone)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_without_workers_ends_too(cli: CommandLine, dataset: Path, how: int):
    process = cli.start("check", dataset)
    wait_for(lambda: heeds(process.pid, how), process)
    end(cli, process, how)


def heeds(number: int, how: int) -> bool:
    "Say whether a process has a handler for a signal."
    lines = Path(f"/proc/{number}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (how - 1) & 1)


def test_quarto_ends_with_the_report(
    cli: CommandLine, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    quarto = tmp_path / "quarto"
    quarto.write_text("#!/bin/bash\nsleep 600 &\nsleep 601\n")
    quarto.chmod(quarto.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setitem(cli.env, "PATH", f"{tmp_path}:{cli.env['PATH']}")
    for how in (signal.SIGKILL, signal.SIGTERM):
        process = cli.start("report", "tiny")
        wait_for(lambda: "sleep 600" in str(processes_of(cli.mark)), process)
        end(cli, process, how)


@contextlib.contextmanager
def kernels_begin_with(code: str, folder: Path) -> Iterator[None]:
    "Let kernels execute a line before they answer."
    first = folder / "sitecustomize.py"
    first.write_text(f"import sys\nif 'ipykernel_launcher' in sys.orig_argv:\n    {code}\n")
    try:
        yield
    finally:
        first.unlink()


@pytest.mark.parametrize(
    ("code", "patience", "told"),
    [
        ("import time; time.sleep(60)", "2", "did not answer in time, the machine may be busy"),
        ("import os; os._exit(3)", "600", "its kernel died"),
    ],
)
def test_a_kernel_that_does_not_come_is_a_sentence(
    cli: CommandLine, dataset: Path, code: str, patience: str, told: str,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setitem(cli.env, "ASM_PATIENCE", patience)
    with kernels_begin_with(code, cli.root):  # which kernels import from
        said = cli.quickly("explore", dataset, status=1)
    assert told in said and "explore.ipynb" in said
