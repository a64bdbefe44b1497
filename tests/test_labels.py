"""What people draw and name, in the forms in which it arrives: through the commands."""

import unicodedata
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from helpers import CommandLine, change_raster, write_dataset
from hostile import SQUARE, picture
from shapely.geometry import shape

from asm_mapping.catalog import read_manifest
from asm_mapping.store import open_store, prepare


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "One mine as a GeoPackage, a FileGDB, a folder with a Shapefile, a raster of 0 and 255."
    folder = tmp_path_factory.mktemp("drawn")
    mines = geopandas.GeoDataFrame({"unsure": [0.0]}, geometry=[shape(SQUARE)], crs=4326)
    mines.to_file(folder / "mines.gpkg")
    pyogrio.write_dataframe(mines, folder / "mines.gdb", driver="OpenFileGDB", layer="mines")
    (folder / "shapefiles").mkdir()
    mines.to_file(folder / "shapefiles/mines.shp")
    scene = picture(folder / "scene.tif")
    with rasterio.open(scene) as source:
        profile = source.profile | {"count": 1, "dtype": "uint8"}
    with rasterio.open(folder / "mines.tif", "w", **profile) as file:
        file.write(np.pad(np.full((1, 20, 20), 255, np.uint8), ((0, 0), (30, 78), (30, 78))))
    return folder


@pytest.mark.parametrize("form", ["mines.gdb", "shapefiles"])
def test_a_folder_of_shapes_makes_the_same_chips(
    cli: CommandLine, drawn: Path, tmp_path: Path, form: str
):
    masks = {}
    for name in ("mines.gpkg", form):
        words = ("chips", "--optical", drawn / "scene.tif", "--chip-px", 32, "--labels")
        cli.quickly(*words, drawn / name, "--out", tmp_path / name / "cut", status=0)
        files = sorted((tmp_path / name / "cut/mask").iterdir())
        masks[name] = {file.name: file.read_bytes() for file in files}
    assert masks[form] == masks["mines.gpkg"] and masks[form]


def test_a_label_raster_of_other_values_is_told_with_them(
    cli: CommandLine, drawn: Path, tmp_path: Path
):
    words = ("--optical", drawn / "scene.tif", "--out", tmp_path / "cut", "--chip-px", 32)
    told = cli.quickly("chips", "--labels", drawn / "mines.tif", *words, status=1)
    assert "0 (97.56%), 255 (2.44%)" in told and "if 255 means a mine: rio calc" in told


def test_names_in_two_forms_and_masks_with_nan(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    manifest = write_dataset(tmp_path, "forms")
    root = tmp_path / "forms"
    for number, part in enumerate(("optical", "sar", "mask")):
        for file in sorted((root / part).iterdir()):
            name = unicodedata.normalize(("NFC", "NFD")[number % 2], f"é{file.name}")
            file.rename(file.with_name(name))
    for file in (root / "mask").iterdir():
        change_raster(file, lambda values: np.where(values == 1, 1.0, np.nan)[:, :64])
    table = (root / "chips.csv").read_text().replace("\nc", "\ne\u0301c")
    (root / "chips.csv").write_text(table, encoding="utf-16")
    told = cli.quickly("check", manifest, status=3)
    assert "nan (8" in told and "ignore = [nan]" in told
    text = manifest.read_text().replace("[255]", "[nan]")
    manifest.write_text(text, encoding="utf-8-sig")
    assert cli.quickly("check", manifest, status=0).splitlines()[-1] == "ok"
    monkeypatch.setenv("ASM_DATA", str(tmp_path / "data"))
    store = open_store(prepare(read_manifest(manifest), progress=False).folder)
    assert set(np.unique(store.mask(0))) == {1, 255}
    assert store.manifest.mask.ignore == ("nan",) and store.chips["chip"][0] == "\u00e9c00"
