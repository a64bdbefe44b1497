"""One run as a person meets it: wrong words, reuse, Ctrl-C, a kill, a second writer."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from helpers import SMALL, CommandLine, Process, finish, wait_for

from asm_mapping import __version__

ROUNDS = 8
LONG = f"-p steps {3 * ROUNDS} -p rounds {ROUNDS} -p batch_size 4 -p chip_px 32".split()
ENDLESS = "-p steps 3000 -p rounds 1000 -p batch_size 4 -p chip_px 32".split()


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def trained_a_while(partial: Path) -> bool:
    "Say whether a run has validated twice and written a checkpoint."
    history = partial / "history.csv"
    rows = history.read_text().count("\n") if history.exists() else 0
    return rows > 2 and (partial / "checkpoints/last.ckpt").exists()


def start(cli: CommandLine, name: str, *words: object) -> tuple[Process, Path]:
    "Start a run of the radar model and wait until it is well under way."
    process = cli.start(*words, "--name", name)
    partial = cli.runs / name / "sar/fold-0_partial"
    wait_for(lambda: trained_a_while(partial), process)
    return process, partial


def test_help_names_the_commands(cli: CommandLine):
    told = cli("--help").out
    for command in ("demo", "check", "explore", "run", "compare", "evaluate", "report", "runs"):
        assert command in told


def test_version_and_short_help(cli: CommandLine):
    assert cli.quickly("--version", status=0) == f"asm-mapping {__version__}\n"
    assert "Usage" in cli.quickly("-h", status=0)
    for command in cli.quickly("--help", status=0).split("─ Learn ─")[1].splitlines():
        if found := re.match(r"\W+([a-z]+)  ", command):
            assert "Usage" in cli.quickly(found[1], "-h", status=0)


def test_tables_are_published_where_they_are_committed(cli: CommandLine):
    tables = cli.runs / "published/tables"
    tables.mkdir(parents=True)
    (tables / "scores.csv").write_text("f1\n0.5\n")
    told = cli.quickly("publish", "published", status=0)
    copied = cli.root / "reports/published/scores.csv"
    assert str(copied) in told and copied.read_text() == "f1\n0.5\n"
    (tables / "scores.csv").write_text("f1\n0.6\n")
    assert "--overwrite" in cli.quickly("publish", "published", status=1)
    cli.quickly("publish", "published", "--overwrite", status=0)
    assert copied.read_text() == "f1\n0.6\n"
    copied.write_text("a person's")
    assert "scores.csv is there" in cli.quickly("publish", "published", "--overwrite", status=1)
    assert copied.read_text() == "a person's"
    assert "no tables" in cli.quickly("publish", "nothing", status=1)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ("run {} --modality optical -p stepz 3", 1, "stepz"),
        ("run {} --modality optical -p steps many", 1, "steps"),
        ("run {} --modality radar", 1, "radar"),
        ("run {} --modality optical --fold 7", 1, "7"),
        ("run {} --modality optical -p", 2, ""),
        ("run {}", 2, "modality"),
        ("run {} --modality optical --folder x", 2, "folder"),
        ("compare {} --modalities sar,radar", 1, "radar"),
        ("compare {} -p weights no-such-weights", 1, "no-such-weights"),
        ("evaluate nowhere {}", 1, "nowhere"),
    ],
)
def test_wrong_words_are_named(
    cli: CommandLine, dataset: Path, words: str, status: int, told: str
):
    before = set(cli.runs.glob("*/*/*_partial"))
    assert told in cli.quickly(*words.format(dataset).split(), status=status)
    assert set(cli.runs.glob("*/*/*_partial")) == before, "nothing begins that cannot end"


def test_fusion_of_one_sensor_is_refused(cli: CommandLine, dataset: Path, tmp_path: Path):
    text = dataset.read_text()
    alone = tmp_path / "alone.toml"
    alone.write_text(text[: text.index("[sar]")] + text[text.index("[mask]") :])
    told = cli.quickly("run", alone, "--modality", "late_fusion", *SMALL, status=1)
    assert "sar" in told and "late_fusion" in told


def test_a_run_folder_is_whole(finished: Path):
    names = {path.name for path in finished.iterdir()}
    files = "run.ipynb settings.json splits.csv history.csv metrics.json curve.csv chips.csv"
    assert {*files.split(), "provenance.json", "predictions", "model", "SHA256SUMS"} <= names
    assert not finished.with_name("fold-0_partial").exists()
    metrics = read(finished, "metrics")
    assert 0 <= metrics["test"]["f1"] <= 1 and metrics["cost"]["parameters"] > 1e6


def test_a_finished_run_is_reused(cli: CommandLine, dataset: Path, finished: Path):
    before = (finished / "metrics.json").stat().st_mtime_ns
    told = cli.quickly("run", dataset, "--modality", "optical", *SMALL, status=0)
    assert "reused" in told
    assert (finished / "metrics.json").stat().st_mtime_ns == before


def test_a_run_that_was_changed_is_not_read(
    cli: CommandLine, dataset: Path, finished: Path, tmp_path: Path
):
    again = ("run", dataset, "--modality", "optical", *SMALL)
    evaluate = ("evaluate", finished, dataset)
    changes = {"splits.csv": ("train", "test"), "metrics.json": ("{", "")}
    for name, change in changes.items():
        path, text = finished / name, (finished / name).read_text()
        path.write_text(text.replace(*change))
        for words in (again, evaluate):
            told = cli.quickly(*words, status=1)
            assert f"{name} is damaged or was changed" in told and "run it again" in told
        path.write_text(text)
    shutil.copytree(finished, tmp_path / "older")
    (tmp_path / "older/SHA256SUMS").unlink()
    assert "SHA256SUMS is missing" in cli.quickly(
        "evaluate", tmp_path / "older", dataset, status=1
    )
    provenance = read(finished, "provenance")
    del provenance["checksums"]  # as a run of an earlier version has none
    (tmp_path / "older/provenance.json").write_text(json.dumps(provenance))
    assert "cannot be checked" in cli.quickly("evaluate", tmp_path / "older", dataset, status=0)
    assert "reused" in cli.quickly(*again, status=0)


def test_other_settings_are_named_one_by_one(cli: CommandLine, dataset: Path, finished: Path):
    other = ("-p", "steps", 7, "-p", "loss", "focal")
    told = cli.quickly("run", dataset, "--modality", "optical", *SMALL, *other, status=1)
    assert "steps is 6 there, 7 here" in told and "loss is 'bce_dice' there" in told
    assert (finished / "metrics.json").exists()


def test_a_killed_run_goes_on_to_the_same_weights(cli: CommandLine, dataset: Path):
    words = ("run", dataset, "--modality", "sar", *LONG)
    process, partial = start(cli, "killed", *words)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert partial.exists() and not (partial.parent / "fold-0").exists()
    assert "partial" in cli.quickly("runs", "killed", status=0)
    assert "going on" in cli(*words, "--name", "killed").text
    cli(*words, "--name", "whole")
    whole, killed = (cli.runs / name / "sar/fold-0" for name in ("whole", "killed"))
    assert read(killed, "provenance")["weights"] == read(whole, "provenance")["weights"]
    assert read(killed, "metrics")["test"] == read(whole, "metrics")["test"]
    for folder in (whole, killed):
        assert (folder / "history.csv").read_text().count("\n") == ROUNDS + 1


def test_a_second_writer_waits_and_ctrl_c_keeps_the_partial_run(
    cli: CommandLine, dataset: Path
):
    words = ("run", dataset, "--modality", "sar", *ENDLESS)
    process, partial = start(cli, "stopped", *words)
    told = cli.quickly(*words, "--name", "stopped", status=1)
    assert "another process is writing" in told
    os.killpg(process.pid, signal.SIGINT)
    assert "stopped" in finish(process, status=130).text
    assert (partial / "checkpoints/last.ckpt").exists()
    assert not (partial.parent / "fold-0").exists()
    assert "partial" in cli.quickly("runs", "stopped", status=0)
