"""A map is sampled, a person fills the points in, the answers become hectares."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from helpers import CommandLine
from rasterio.transform import from_origin

SIDE, PIXEL_M = 200, 10
MINES = ((20, 30, 24), (120, 90, 30), (60, 150, 16))  # upper left corner and side, pixels


def mined(shift: int = 0) -> np.ndarray:  # (row, column) 0 and 1
    "Draw square mines."
    classes = np.zeros((SIDE, SIDE), np.uint8)
    for row, column, side in MINES:
        classes[row : row + side, column + shift : column + shift + side] = 1
    return classes


@pytest.fixture
def demo_map(tmp_path: Path) -> Path:
    "A map as predict leaves it, a strip of it without data."
    classes = mined()
    classes[:, :10] = 255
    profile = {"driver": "COG", "count": 1, "height": SIDE, "width": SIDE, "dtype": "uint8"}
    profile |= {"crs": "EPSG:32735", "nodata": 255}
    profile |= {"transform": from_origin(600_000, 9_800_000, PIXEL_M, PIXEL_M)}
    layers = {"map": np.where(classes < 2, classes * 160 + 20, 255), "map_class": classes}
    for name, layer in layers.items():
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile) as target:
            target.write(layer.astype(np.uint8), 1)
    return tmp_path / "map.tif"


def test_from_a_map_to_hectares(cli: CommandLine, demo_map: Path, tmp_path: Path):
    out = tmp_path / "points.gpkg"
    words = ("area", "sample", demo_map, "--out", out, "--points", 300, "--boundary-m", 30)
    told = cli(*words).text
    assert f"wrote {out}: 300 points (" in told
    assert f"asm-mapping area estimate {out}" in told
    points = gpd.read_file(out, layer="points")
    assert not {"stratum", "map_class"} & set(points.columns)  # the interpreter sees no map
    assert "no point has an answer" in cli.quickly("area", "estimate", out, status=1)

    truth = mined(shift=2)  # what is on the ground: the map is 20 m off
    column = ((points.geometry.x - 600_000) // PIXEL_M).astype(int)
    row = ((9_800_000 - points.geometry.y) // PIXEL_M).astype(int)
    answers = pd.Series(truth[row, column]).astype(str)
    answers[250:] = None  # the person stopped
    answers[3] = "unsure"
    points.assign(reference=answers).to_file(out, layer="points", driver="GPKG")
    result = tmp_path / "area.json"
    told = cli("area", "estimate", out, "--json", result).text
    assert "249 of 300 points are interpreted (50 are empty, 1 unsure: left out)" in told
    found = json.loads(result.read_text())
    true_ha = truth[:, 10:].sum() * PIXEL_M**2 / 10_000
    assert found["mined_ha"]["low"] < true_ha < found["mined_ha"]["high"]
    assert abs(found["mapped_ha"] - mined().sum() * PIXEL_M**2 / 10_000) < 0.2
    low, high = (found["overall_accuracy"][end] for end in ("low", "high"))
    assert low < (truth == mined())[:, 10:].mean() < high
    assert "exists, of another time" in cli.quickly(
        "area", "estimate", out, "--json", result, status=1
    )
    assert "no longer what this program wrote" in cli.quickly(*words, "--overwrite", status=1)


def test_what_a_person_gets_wrong(cli: CommandLine, demo_map: Path, tmp_path: Path):
    out = tmp_path / "points.gpkg"
    words = ("area", "sample", demo_map, "--out", out)

    def refused(*more: object) -> str:
        return cli.quickly(*words, *more, status=1)

    assert "give one of them" in refused("--points", 9, "--area-error-ha", 3)
    assert "--boundary-m 4: no pixel lies so near" in refused("--boundary-m", 4)
    assert "--expected mine: give shares as" in refused("--expected", "mine")
    assert "nowhere_class.tif: does not exist" in cli.quickly(
        "area", "sample", tmp_path / "nowhere.tif", "--out", out, status=1
    )
    assert not out.exists()
    cli.quickly(*words, "--points", 20, "--rare", 5, status=0)
    table = pd.read_csv(out.with_suffix(".csv"), dtype=str)
    table["reference"] = ["1", "yes", *["0"] * 18]
    table.to_csv(out.with_suffix(".csv"), index=False)
    told = cli.quickly("area", "estimate", out.with_suffix(".csv"), status=1)
    assert "row 2 (point 2): reference is 'yes'" in told
