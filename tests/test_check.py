"""A person's dataset, told right: `asm-mapping check` and the errors of a manifest."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from helpers import ROOT, CommandLine, change_raster, write_dataset

from asm_mapping.catalog import read_manifest
from asm_mapping.statistics import signed

FAULTS = {  # file: words that must stand beside it
    "optical/c00.tif": "truncated",
    "sar/c01.tif": "band",
    "mask/c02.tif": "57 x 64",
    "mask/c03.tif": "7",
    "sar/c04.tif": "valid",
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A dataset with every fault, each on a chip of its own; c10 looks like c11."
    manifest = write_dataset(tmp_path_factory.mktemp("faulty"), "faulty")
    root = manifest.parent / "faulty"
    truncated = root / "optical/c00.tif"
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])
    change_raster(root / "sar/c01.tif", lambda values: values[[0, 1, 1]])
    change_raster(root / "mask/c02.tif", lambda values: values[:, :-7])
    change_raster(root / "mask/c03.tif", lambda values: values * 7)
    change_raster(root / "sar/c04.tif", lambda values: values * np.nan)
    with rasterio.open(root / "optical/c11.tif") as file:
        change_raster(root / "optical/c10.tif", lambda _: file.read() + 1)
    (root / "sar/c05.tif").unlink()
    table = (root / "chips.csv").read_text().replace("c06,g2\n", "") + "c99,g0\n"
    (root / "chips.csv").write_text(table)
    return manifest


@pytest.fixture(scope="module")
def told(cli: CommandLine, faulty: Path) -> str:
    return cli("check", faulty, status=3).text


@pytest.mark.parametrize("file", FAULTS)
def test_each_bad_file_is_named_with_its_fault(told: str, file: str):
    lines = [line for line in told.splitlines() if file in line]
    assert any(FAULTS[file] in line for line in lines), told


@pytest.mark.parametrize("chip", ["c05", "c06", "c99"])
def test_chips_without_partner_or_index_row_are_named(told: str, chip: str):
    assert chip in told


def test_whole_chips_are_not_accused(told: str):
    assert not [line for line in told.splitlines() if "c09" in line]


def test_chips_that_look_alike_across_groups_are_warned_of(told: str):
    assert any("c10" in line and "c11" in line for line in told.splitlines())


def test_a_whole_dataset_is_fine(cli: CommandLine, dataset: Path):
    report = json.loads(cli.quickly("check", dataset, "--json", status=0))
    assert "c00" not in json.dumps(report)


def test_json_is_for_machines(cli: CommandLine, faulty: Path):
    report = json.loads(cli("check", faulty, "--json", status=3).out)
    assert "optical/c00.tif" in json.dumps(report)


def test_prepare_refuses_what_check_accuses(cli: CommandLine, faulty: Path):
    told = cli("run", faulty, "--modality", "optical", "--fold", "0", status=1).text
    assert "optical/c00.tif" in told and "exclude" in told


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("licence =", "license =", "license"),
        ('path = "sar/{chip}.tif"', "", "sar.path"),
        ("positive = [1]", 'positive = "one"', "positive"),
        ("planet_nicfi", "planet_x", "planet_x"),
        ("[index]", "[index", "line"),
        ('group = "group"', 'group = "scene"', "scene"),
        ("root = ", 'root = "absent" #', "absent"),
    ],
)
def test_a_broken_manifest_is_told_in_a_sentence(
    cli: CommandLine, dataset: Path, tmp_path: Path, old: str, new: str, words: str
):
    text = dataset.read_text()
    assert old in text
    broken = tmp_path / "broken.toml"
    broken.write_text(text.replace(old, new))
    assert words in cli.quickly("check", broken, status=1)


def test_a_missing_manifest_is_named(cli: CommandLine):
    assert "nowhere.toml" in cli("check", "nowhere.toml", status=1).text


def means(dataset: str) -> dict[str, tuple[str, ...]]:  # modality: F1, average precision
    "Read what a published comparison found, as the README writes it."
    scores = pd.read_csv(ROOT / f"reports/{dataset}/scores.csv")
    names = [
        f"{score}_{what}" for score in ("f1", "average_precision") for what in ("mean", "sd")
    ]
    return {
        row["modality"]: tuple(f"{row[name]:.3f}" for name in names)
        for _, row in scores[scores["scored"] == "test"].iterrows()
    }


def test_the_numbers_of_the_readme_are_of_its_tables():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = " ".join(text.partition("results:start")[2].partition("results:end")[0].split())
    found = means("ombria")
    for modality, (f1, f1_sd, precision, precision_sd) in found.items():
        assert f"| `{modality}` | {f1} ± {f1_sd} | {precision} ± {precision_sd} |" in text
    assert text.count("| `") == len(found) == 5
    f1, f1_sd, precision, precision_sd = means("tailings")["optical"]
    assert f"F1 is {f1} ± {f1_sd} and average precision {precision} ± {precision_sd}" in text
    pairs = pd.read_csv(ROOT / "reports/ombria/pairs.csv").set_index(["first", "second"])
    for single, what in (("sar", "of F1 ahead of radar"), ("optical", "ahead of the optical")):
        row = pairs.loc[(single, "early_fusion")]
        assert f"{row['difference']:.3f} {what}" in text
        assert f"{signed(row['low'])} to {signed(row['high'])}" in text
    assert f"(p = {pairs['p_holm'].min():.2f} for the clearest)" in text


def test_the_pairs_of_the_results_are_of_their_table():
    text = (ROOT / "reports/README.md").read_text(encoding="utf-8")
    pairs = pd.read_csv(ROOT / "reports/ombria/pairs.csv")
    shown = 0
    for row in pairs.to_dict("records"):
        line = (
            f"| {signed(row['difference'])} | {signed(row['low'])} to {signed(row['high'])} | "
        )
        shown += f"{line}{row['p']:.2f} | {row['p_holm']:.2f} |" in text
    assert shown == 7  # of ten; the page leaves out three that nobody asks after


def test_the_manifests_of_the_pages_are_right(tmp_path: Path):
    pages = [
        (ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "nbs/manifest.md")
    ]
    short, whole, other_sensor = re.findall(r"```toml\n(.*?)```", "".join(pages), re.DOTALL)
    swapped = re.sub(
        r"\[optical\].*?(?=\[sar\])", lambda _: other_sensor, whole, flags=re.DOTALL
    )
    for number, manifest in enumerate((short, whole, swapped)):
        path = tmp_path / f"{number}.toml"
        path.write_text(manifest)
        assert read_manifest(path, root=tmp_path).roles == ("optical", "sar")
