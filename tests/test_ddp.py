"""Training on several processes: pooled scores, a dead rank, Ctrl-C, SLURM's tasks."""

import json
import os
import signal
import time
from pathlib import Path

import helpers
import pandas as pd
import psutil
import pytest
from helpers import CommandLine, Process, finish, processes_of, wait_for

TWO = ("--devices", 2, "--strategy", "ddp", "-p", "threads", 1)
SMALL = "-p encoder mobilenet_v2 -p decoder_channels 32,16,16,8,8 -p batch_size 4 -p chip_px 32"
LONG = f"{SMALL} -p steps 40 -p rounds 4".split()


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def ranks_of(runs: Path) -> list[psutil.Process]:
    "Find processes that train as ranks of a run below a folder."
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if "train_as_rank" in words and str(runs) in words:
            found.append(process)
    return found


def wait_until_gone(runs: Path) -> None:
    "Wait at most some seconds until no rank is left."
    end = time.monotonic() + 20
    while left := ranks_of(runs):
        assert time.monotonic() < end, f"orphans: {left}"
        time.sleep(0.2)


def begin(cli: CommandLine, name: str, *words: object) -> tuple[Process, Path]:
    "Start a run on two processes and wait until its first round is over."
    process = cli.start(*words, "--name", name)
    partial = cli.runs / name / "late_fusion/fold-0_partial"
    wait_for(lambda: (partial / "checkpoints/last.ckpt").exists(), process)
    return process, partial


@pytest.fixture(scope="module")
def whole(cli: CommandLine, dataset: Path) -> Path:
    "A finished run on two processes."
    cli("run", dataset, "--modality", "late_fusion", *LONG, *TWO, "--name", "whole")
    return cli.runs / "whole/late_fusion/fold-0"


def test_scores_are_pooled_and_written_once(cli: CommandLine, whole: Path):
    history, metrics = pd.read_csv(whole / "history.csv"), read(whole, "metrics")
    assert history["step"].tolist() == [10, 20, 30, 40]
    alone = metrics["validation"]["average_precision"]  # the same weights, in one process
    assert history["validation_ap"].max() == pytest.approx(alone, abs=1e-6)
    left = {path.name for path in whole.iterdir()}
    assert not {"ranks.json", "checkpoints"} & left and not [*whole.glob("*.log")]
    wait_until_gone(cli.runs)


def test_a_dead_rank_ends_the_run_which_goes_on_as_a_slurm_job_to_the_same_weights(
    cli: CommandLine, dataset: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ("run", dataset, "--modality", "late_fusion", *LONG, *TWO)
    process, partial = begin(cli, "dead", *words)
    ranks = ranks_of(partial)
    assert len(ranks) == 2
    ranks[-1].kill()
    told = finish(process, status=1).text
    assert "ended by SIGKILL" in told or "failed" in told
    assert "goes on from the last round" in told
    wait_until_gone(cli.runs)
    job = {"JOB_ID": "77", "STEP_ID": "0", "NTASKS": "2", "NTASKS_PER_NODE": "2", "NNODES": "1"}
    job |= {"JOB_NAME": "interactive", "NODEID": "0", "NODELIST": "localhost"}  # as of salloc
    tasks = []
    for task in "10":
        mine = job | {"PROCID": task, "LOCALID": task}
        monkeypatch.setattr(cli, "env", cli.env | {f"SLURM_{k}": v for k, v in mine.items()})
        tasks.append(cli.start(*words, "--name", "dead"))
    told = [finish(process, status=0).text for process in tasks]
    assert "going on" in told[1] and "going on" not in told[0]  # the first task's to say
    dead = cli.runs / "dead/late_fusion/fold-0"
    assert read(dead, "provenance")["weights"] == read(whole, "provenance")["weights"]
    assert len(pd.read_csv(dead / "history.csv")) == 4
    wait_until_gone(cli.runs)


@pytest.mark.parametrize("everyone", [False, True])
def test_a_signal_leaves_no_process(cli: CommandLine, dataset: Path, everyone: bool):
    endless = f"{SMALL} -p steps 3000 -p rounds 1000".split()
    words = ("run", dataset, "--modality", "late_fusion", *endless, *TWO)
    process, _ = begin(cli, f"stopped-{everyone}", *words)
    how = signal.SIGTERM if everyone else signal.SIGINT  # SLURM's to all, a terminal's
    for number in processes_of(cli.mark) if everyone else [process.pid]:
        os.kill(number, how)
    helpers.wait_until_gone(cli.mark)
    assert "stopped" in finish(process, status=128 + how).text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--devices 3", "batch_size 8: 3 processes cannot share it evenly"),
        ("--devices 2 --strategy ddp_notebook", "several processes train with ddp"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    cli: CommandLine, dataset: Path, words: str, told: str
):
    command = ("run", dataset, "--modality", "late_fusion", *words.split())
    assert told in cli.quickly(*command, status=1)
