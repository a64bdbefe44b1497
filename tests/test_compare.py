"""A comparison, what follows from it, and what happens when one of its runs fails."""

import base64
import csv
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import rasterio
from browser import Lab, Watched, appears, look_at_page
from helpers import CHIPS, ROOT, SMALL, CommandLine, write_dataset
from playwright.sync_api import Browser
from rasterio.transform import from_origin

from asm_mapping.compare import run_table
from asm_mapping.settings import make_settings, plan_steps

ARMS = ("sar", "optical", "decision_fusion")


@pytest.fixture(scope="module")
def compared(cli: CommandLine, dataset: Path, finished: Path) -> str:
    "A comparison of three arms on two folds, one run of which was finished before."
    return cli("compare", dataset, "--modalities", ",".join(ARMS), *SMALL).text


def test_compare_reuses_and_writes_tables(cli: CommandLine, compared: str, finished: Path):
    assert f"reused ({finished})" in compared
    for arm in ARMS:
        for fold in (0, 1):
            assert (cli.runs / f"tiny/{arm}/fold-{fold}/metrics.json").exists()
    assert (cli.runs / "tiny/compare.ipynb").exists()
    with open(cli.runs / "tiny/tables/scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["modality"] for row in rows} == set(ARMS)


def test_a_page_tells_the_steps_that_are_taken():
    asked = make_settings(preset="full", steps=70)  # twenty rounds of four
    run = SimpleNamespace(settings=asked, manifest=SimpleNamespace(target="squares"))
    run.plan = plan_steps(asked, 1e6, 32)
    assert run_table(run, "tiny").set_index("tiny").loc["Preset"].item() == "full, 80 steps"


def test_decision_fusion_costs_the_sum(cli: CommandLine, compared: str):
    cost = {
        arm: json.loads((cli.runs / f"tiny/{arm}/fold-0/metrics.json").read_text())["cost"]
        for arm in ARMS
    }
    alone = cost["sar"]["parameters"] + cost["optical"]["parameters"]
    assert alone <= cost["decision_fusion"]["parameters"] <= alone + 3
    assert cost["decision_fusion"]["flop_per_pixel"] == pytest.approx(
        cost["sar"]["flop_per_pixel"] + cost["optical"]["flop_per_pixel"], rel=0.01
    )


def test_every_arm_is_scored_on_the_same_pixels(cli: CommandLine, compared: str):
    for fold in (0, 1):
        folders = [cli.runs / f"tiny/{arm}/fold-{fold}" for arm in ARMS]
        assert len({(folder / "splits.csv").read_text() for folder in folders}) == 1
        tests = [json.loads((f / "metrics.json").read_text())["test"] for f in folders]
        assert len({(test["pixels"], test["positives"]) for test in tests}) == 1


def test_robustness_measures_each_run_once(cli: CommandLine, compared: str):
    told = cli("robustness", "tiny").text
    assert "6 finished runs, 6 to measure" in told and "Decision fusion against Optical" in told
    path = cli.runs / "tiny/tables/robustness.csv"
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["arm"], row["fold"]) for row in rows} == {(a, f) for a in ARMS for f in "01"}
    assert all(row["ap"] or row["why"] for row in rows)
    for fold in "01":  # every level of every arm speaks of the same pixels
        whole = [r for r in rows if r["fold"] == fold and not r["kind"].endswith("_share")]
        assert len({(row["pixels"], row["positives"]) for row in whole}) == 1
    before = path.read_bytes()
    assert "6 finished runs, 0 to measure" in cli("robustness", "tiny").text
    assert path.read_bytes() == before
    assert "no finished run" in cli.quickly("robustness", "nothing", status=1)


def test_runs_lists_them(cli: CommandLine, compared: str):
    told = cli.quickly("runs", "tiny", status=0)
    assert told.count("finished") == 6 and "partial" not in told


def test_report_without_quarto_opens_from_disk(cli: CommandLine, compared: str):
    told = cli("report", "tiny").text
    assert "quarto" in told.lower()
    site = cli.root / "reports/_site"
    assert str(site / "index.html") in told
    pages = list(site.rglob("*.html"))
    assert len(pages) >= 2
    for page in pages:
        text = page.read_text(encoding="utf-8")
        remote = re.findall(
            r"<(?:script|link|img)[^>]+(?:src|href)=\"(?:https?:)?//[^\"]*", text
        )
        assert not remote, f"{page.name} wants the network: {remote[:3]}"
        for image in re.findall(r"<img [^>]*>", text):
            assert re.search(r' alt="[^"]+" width="\d+" height="\d+"', image), page.name
        assert len(text) < 3_000_000
    first = (site / "index.html").read_text(encoding="utf-8")
    assert "On tiny " in first and "reports/pages/tiny-sar-fold-0.html" in first
    assert (site / "reports/files/tiny/tables/scores.csv").exists()


def test_the_report_in_a_browser_without_a_network(
    cli: CommandLine, compared: str, chromium: Browser, tmp_path: Path
):
    site = cli.root / "reports/_site"
    if not (site / "index.html").exists():
        cli("report", "tiny")
    pages = sorted(site.rglob("*.html"))
    kinds = {re.sub(r"[\d-]+|sar|optical|decision_fusion", "", page.stem) for page in pages}
    seen: set[str] = set()
    for page in pages:  # one of each kind: three arms and two folds look alike
        kind = re.sub(r"[\d-]+|sar|optical|decision_fusion", "", page.stem)
        if kind not in seen:
            look_at_page(chromium, page, tmp_path)
        seen.add(kind)
    assert seen == kinds and len(seen) >= 3


def test_the_workbench_in_jupyterlab(
    cli: CommandLine, compared: str, dataset: Path, chromium: Browser, tmp_path: Path
):
    values = np.zeros((600, 800), np.uint8)
    values[200:260, 300:400] = 160
    size = {"height": 600, "width": 800, "count": 1, "dtype": "uint8", "nodata": 255}
    place = {"crs": "EPSG:32735", "transform": from_origin(300_000, 9_800_000, 10, 10)}
    with rasterio.open(tmp_path / "map.tif", "w", "COG", **size, **place) as made:
        made.write(values, 1)
        made.update_tags(ASM_THRESHOLD="0.5")
    book = nbformat.read(ROOT / "nbs/66_workbench.ipynb", as_version=4)
    (given,) = (c for c in book.cells if "parameters" in c.metadata.get("tags", []))
    given.source += f"\ndataset, name, maps = {str(dataset)!r}, 'tiny', 'map.tif'"
    nbformat.write(book, tmp_path / "workbench.ipynb")
    lab = Lab(tmp_path, cli.env)
    try:
        lab.wait()
        watched = Watched(chromium, lab.host)
        work(watched, f"http://{lab.host}/doc/tree/workbench.ipynb", tmp_path)
    finally:
        lab.close()


def work(watched: Watched, address: str, folder: Path) -> None:
    "Do in the workbench what a person does, and see that it answers."
    page = watched.page
    page.goto(address)
    appears(page.get_by_text("| Idle"))
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    appears(page.get_by_text("Move the threshold: hectares are counted then."))
    assert page.get_by_text("this chip's F1").count() == 1
    page.locator(".bk-Button").get_by_text("wrong", exact=True).first.click()
    appears(page.get_by_text("1 mark in"))
    handles = page.locator(".noUi-handle")
    handles.last.press("ArrowRight")
    appears(page.get_by_text("At 0.505"))
    assert page.get_by_text("60.0 ha").count() == 1
    handles.first.press("ArrowRight")
    appears(page.get_by_role("cell", name="0.505"))
    watched.keep("workbench", folder)
    canvas = page.locator(".bk-Figure").last
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    appears(page.get_by_text("probability", exact=True))
    assert not watched.troubles, watched.troubles


def test_a_report_shows_only_what_is_its_own(cli: CommandLine, compared: str, tmp_path: Path):
    (tmp_path / "id_rsa").write_text("PRIVATE KEY")
    (cli.root / "here.svg").write_text("<svg>SECRET</svg>")  # the folder of the command
    brought = cli.runs / "brought/sar/fold-0"
    brought.mkdir(parents=True)
    (brought / "own.svg").write_text("<svg>MINE</svg>")
    named = [
        tmp_path / "id_rsa",
        "here.svg",
        "https://example.org/a.png",
        "attachment:gone.png",
    ]
    cells = [nbformat.v4.new_markdown_cell(f"![]({n}) <img src='{n}'>") for n in named]
    cells += [nbformat.v4.new_markdown_cell("![](own.svg)")]
    cells += [nbformat.v4.new_code_cell("1", execution_count=1)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), brought / "run.ipynb")
    (cli.runs / "brought/half.ipynb").write_text('{"cells": [')
    told = cli("report", "brought", status=3).text
    assert told.count("left out: ") == 2 * len(named) + 1
    assert "half.ipynb is no whole notebook" in told and "not attached" in told
    page = (cli.root / "reports/_site/reports/pages/brought-sar-fold-0.html").read_text()
    kept = (cli.root / "reports/pages/brought-sar-fold-0.ipynb").read_text()
    for text in (page, kept):
        images = re.findall(r"data:image/svg\+xml;base64,([\w+/=]+)", text)
        assert [base64.b64decode(one) for one in images] == [b"<svg>MINE</svg>"]
        assert "PRIVATE" not in text
    shutil.rmtree(cli.runs / "brought")


def test_evaluate_on_its_own_dataset_scores_test_chips(
    cli: CommandLine, dataset: Path, finished: Path, tmp_path: Path
):
    cli.quickly("evaluate", finished, dataset, "--json", tmp_path / "scores.json", status=0)
    result = json.loads((tmp_path / "scores.json").read_text())
    metrics = json.loads((finished / "metrics.json").read_text())
    with open(finished / "splits.csv", newline="") as file:
        test = [row["chip"] for row in csv.DictReader(file) if row["part"] == "test"]
    assert result["chips"] == len(test)
    assert result["scores"] == metrics["test"]
    again = ("--engine", "onnx", "--json", tmp_path / "onnx.json")
    cli.quickly("evaluate", finished, dataset, *again, status=0)
    onnx = json.loads((tmp_path / "onnx.json").read_text())["scores"]
    assert onnx == pytest.approx(metrics["test"], abs=0.02, rel=0.02)
    words = ("evaluate", finished, dataset, "--engine", "int8")
    assert "quantise" in cli.quickly(*words, status=1)


def test_evaluate_elsewhere_scores_all_chips(cli: CommandLine, finished: Path, tmp_path: Path):
    other = write_dataset(tmp_path, "other", seed=1)
    cli.quickly("evaluate", finished, other, "--json", tmp_path / "scores.json", status=0)
    result = json.loads((tmp_path / "scores.json").read_text())
    metrics = json.loads((finished / "metrics.json").read_text())
    assert result["chips"] == 12
    assert result["scores"]["threshold"] == metrics["validation"]["threshold"]


def test_evaluate_refuses_chips_of_training_by_name(
    cli: CommandLine, dataset: Path, finished: Path, tmp_path: Path
):
    renamed = tmp_path / "renamed.toml"
    text = dataset.read_text().replace('name = "tiny"', 'name = "renamed"')
    renamed.write_text('exclude = ["c00"]\n' + text)
    told = cli.quickly("evaluate", finished, renamed, status=3)
    with open(finished / "splits.csv", newline="") as file:
        parts = {row["chip"]: row["part"] for row in csv.DictReader(file)}
    refused = told[told.index("refused") :]
    for chip, part in parts.items():
        if chip != "c00":
            assert (chip in refused) == (part in ("train", "validation")), chip


def test_a_failed_run_leaves_its_notebook_and_the_others_go_on(
    cli: CommandLine, dataset: Path, compared: str
):
    folder = cli.runs / "tiny/sar/fold-1"
    partial = folder.with_name("fold-1_partial")
    shutil.rmtree(cli.runs / "tiny/optical/fold-1")
    folder.rename(partial)
    for name in ("metrics.json", "provenance.json"):  # as if it had been killed
        (partial / name).unlink()
    (partial / ".writer").touch()
    (partial / "checkpoints").mkdir()
    (partial / "checkpoints/last.ckpt").write_text("a checkpoint that a bad disk spoiled")
    told = cli("compare", dataset, "--modalities", "sar,optical", *SMALL, status=3).text
    assert re.search(r"failed: .*sar.*fold 1", told), told
    assert str(partial / "run.ipynb") in told
    cells = nbformat.read(partial / "run.ipynb", as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert any(output.output_type == "error" for output in outputs)
    assert (cli.runs / "tiny/optical/fold-1/metrics.json").exists()
    assert not folder.exists()


def test_streams_start_from_finished_runs_of_the_same_fold(
    cli: CommandLine, dataset: Path, compared: str
):
    streams = [cli.runs / f"tiny/{role}/fold-0" for role in ("sar", "optical")]
    words = ("run", dataset, "--modality", "late_fusion", *SMALL, "--streams", *streams)
    cli(*words)
    run = cli.runs / "tiny/late_fusion_streams/fold-0"
    loaded = json.loads((run / "model/card.json").read_text())["training"]["loaded"]
    assert loaded["tensors"] > 200
    minutes = [
        json.loads((folder / "metrics.json").read_text())["cost"]["minutes"]
        for folder in (run, *streams)
    ]
    assert minutes[0] > minutes[1] + minutes[2], "the streams' cost counts"
    told = cli(*words, "--fold", 1, status=1).text
    assert "cannot serve late_fusion_streams" in told and "fold" in told


def test_a_final_run_carries_the_scores_of_the_folds(
    cli: CommandLine, dataset: Path, compared: str
):
    told = cli("run", dataset, "--modality", "optical", "--fold", "final", *SMALL).text
    run = cli.runs / "tiny/optical/final"
    card = json.loads((run / "model/card.json").read_text())
    assert card["threshold_from"] == f"out-of-fold predictions of folds 0-1 ({CHIPS} chips)"
    assert "chosen on what all folds predicted" in told and card["threshold_from"] in told
    scores = card["scores"]
    assert scores["cross_validated"]["folds"] == ["0", "1"]
    assert "other models" in scores["cross_validated"]["what"] and "test" not in scores
    assert not (run / "predictions/test.npy").exists()
    other = ("--name", "alone", "--modality", "optical", "--fold", "final", *SMALL)
    told = cli("run", dataset, *other).text
    assert "its validation part alone; finish all folds" in told
    card = json.loads((cli.runs / "alone/optical/final/model/card.json").read_text())
    assert card["threshold_from"].startswith("validation part (") and card["threshold"] > 0
