"""Maps as processes: killed, interrupted, damaged, refused, on many workers, as sites."""

import shutil
import signal
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from browser import look_at_page, move_map
from helpers import PIXEL_M, CommandLine, finish, wait_for, wait_until_gone, write_raster
from playwright.sync_api import Browser
from test_disk import limit_files

from asm_mapping.config import FOREIGN
from asm_mapping.outputs import work_folder

FAST = ("--px", 128, "--engine", "eager", "--threads", 1, "--no-page")


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "Write an optical scene of 30 blocks with bright squares in its red band."
    generator = np.random.default_rng(3)
    pattern = np.kron(generator.normal(0, 1, (100, 125)), np.ones((8, 8)))
    optical = generator.normal(2000, 100, (4, 800, 1000)) + 300 * pattern
    for row, column in ((100, 120), (400, 700), (640, 300)):
        optical[:, row : row + 40, column : column + 40] += 1500
    path = tmp_path_factory.mktemp("scene") / "optical.tif"
    write_raster(path, optical.clip(1, 60_000).astype(np.uint16), PIXEL_M, 700_000)
    return path


@pytest.fixture(scope="session")
def whole(cli: CommandLine, finished: Path, scene: Path) -> Path:
    "A map that nothing interrupted."
    out = cli.root.parent / "maps/whole.tif"
    told = cli("predict", finished, "--optical", scene, "--out", out, *FAST).text
    assert "next: asm-mapping polygons" in told
    return out


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as made:
        return made.read()


def same_map(one: Path, other: Path) -> bool:
    "Compare three files of two maps: pixels of the map, bytes of classes and sensors."
    endings = ("_class.tif", "_sensors.tif")
    alike = [
        pixels(one.with_name(one.stem + e)).tobytes()
        == pixels(other.with_name(other.stem + e)).tobytes()
        for e in endings
    ]
    return all(alike) and pixels(one).tobytes() == pixels(other).tobytes()


def test_the_map_stands_where_the_scene_stands(whole: Path, scene: Path):
    with rasterio.open(whole) as made, rasterio.open(scene) as source:
        assert (made.transform, made.crs, made.shape) == (
            source.transform,
            source.crs,
            source.shape,
        )
        assert made.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    hidden = {path.name for path in whole.parent.glob(".*")}
    assert hidden == {".whole.tif.asm"} and not list(whole.parent.glob(".*/work"))


def test_the_page_of_the_map_in_a_browser(
    cli: CommandLine, finished: Path, scene: Path, chromium: Browser, tmp_path: Path
):
    out = tmp_path / "map.tif"
    words = ("predict", finished, "--optical", scene, "--out", out, *FAST[:-1])
    assert "a page to move the map in" in cli.quickly(*words, status=0)
    look_at_page(chromium, out.with_suffix(".html"), tmp_path)
    move_map(chromium, out.with_suffix(".html"), tmp_path)
    sites = out.with_name("map_sites.gpkg")  # which a person makes anew, by other rules
    cli.quickly("polygons", out, "--out", sites, "--min-area-ha", 1, "--overwrite", status=0)
    chosen = sites.read_bytes()
    assert "shows them as they are" in cli.quickly(*words, status=0)
    assert sites.read_bytes() == chosen
    cli.quickly("report", "maps", status=0)
    (moving,) = (cli.root / "reports/_site").rglob("map-*_page.html")
    pages = [page.read_text("utf-8") for page in moving.parents[2].glob("pages/*.html")]
    assert any(f"../files/maps/{moving.name}" in page for page in pages)


def test_another_programs_proj_and_gdal_change_nothing(
    cli: CommandLine, finished: Path, scene: Path, whole: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    (tmp_path / "proj.db").write_text("of another version")
    (tmp_path / "gdal_JUNK.so").write_text("of another GDAL")
    for name in FOREIGN:
        monkeypatch.setitem(cli.env, name, str(tmp_path))
    out = tmp_path / "map.tif"
    told = cli("predict", finished, "--optical", scene, "--out", out, *FAST).text
    assert "ERROR" not in told and same_map(out, whole)
    with rasterio.open(out) as made, rasterio.open(whole) as wanted:
        assert made.crs.to_wkt() == wanted.crs.to_wkt()


def test_sites(cli: CommandLine, whole: Path, tmp_path: Path):
    told = cli("polygons", whole, "--out", tmp_path / "sites.gpkg", "--threshold", 0.5).text
    sites = geopandas.read_file(tmp_path / "sites.gpkg", layer="sites")
    assert f"{len(sites):,} sites" in told
    told = cli.quickly("polygons", tmp_path / "no.tif", "--out", tmp_path / "s.gpkg", status=1)
    assert "no.tif" in told


def test_sites_of_specks_killed_in_the_middle(cli: CommandLine, tmp_path: Path):
    board = np.where(np.indices((300, 500)).sum(axis=0) % 2, 10, 150).astype(np.uint8)
    write_raster(tmp_path / "specks.tif", board[None], PIXEL_M, 300_000)
    words = ("polygons", tmp_path / "specks.tif", "--threshold", 0.5, "--out")
    folder = tmp_path / "killed"
    process = cli.start(*words, folder / "sites.gpkg")
    wait_for(lambda: any(f.stat().st_size > 5e6 for f in folder.rglob("*.gpkg")), process)
    process.kill()
    process.communicate()
    assert not (folder / "sites.gpkg").exists()
    cli(*words, folder / "sites.gpkg")
    cli(*words, tmp_path / "whole.gpkg")
    whole = geopandas.read_file(tmp_path / "whole.gpkg", layer="sites")
    assert len(whole) == 75_000 and geopandas.read_file(
        folder / "sites.gpkg", layer="sites"
    ).equals(whole)
    told = cli(*words, tmp_path / "none.gpkg", "--min-area-ha", 0.1).text
    assert "75,000 below the minimum" in told


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle(
    cli: CommandLine, finished: Path, scene: Path, whole: Path, tmp_path: Path, how: int
):
    out = tmp_path / "map.tif"
    words = ("predict", finished, "--optical", scene, "--out", out, *FAST)
    workers = () if how == signal.SIGINT else ("--workers", 2)
    process = cli.start(*words, *workers)
    work = work_folder(out)
    wait_for(lambda: len(list(work.glob("block_*[0-9].npz"))) >= 2, process)
    process.send_signal(how)
    wait_until_gone(cli.mark)
    if how == signal.SIGKILL:
        process.communicate()
    else:
        assert "goes on from here" in finish(process, 128 + how).text
    assert not out.exists()
    other = cli.quickly(*words[:-1], "--turns", "--no-page", status=1)
    assert "turns: was False, is True" in other and "--overwrite starts it anew" in other
    assert "going on" in cli(*words).text
    assert same_map(out, whole)
    assert "already there" in cli(*words).text


def test_a_damaged_block_is_a_loss(
    cli: CommandLine, finished: Path, scene: Path, tmp_path: Path
):
    with rasterio.open(scene) as source:
        profile = source.profile | {"compress": "deflate", "tiled": True}
        profile |= {"blockxsize": 256, "blockysize": 256}
        with rasterio.open(tmp_path / "tiled.tif", "w", **profile) as made:
            made.write(source.read())
    with rasterio.open(tmp_path / "tiled.tif") as made:
        start = int(made.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    data = (tmp_path / "tiled.tif").read_bytes()
    (tmp_path / "tiled.tif").write_bytes(data[:start] + bytes(64) + data[start + 64 :])
    words = ("predict", finished, "--optical", tmp_path / "tiled.tif", *FAST)
    told = cli(*words, "--out", tmp_path / "map.tif", status=3).text
    assert "lost: " in told and "row 256, column 256" in told
    found = pixels(tmp_path / "map.tif")[0]
    assert (found[256:512, 256:512] == 255).all() and (found[:256] != 255).all()


def test_no_room_for_the_map(cli: CommandLine, finished: Path, scene: Path, tmp_path: Path):
    words = ("predict", finished, "--optical", scene, "--out", tmp_path / "map.tif", *FAST)
    for size in (50_000, 600_000):  # a block, a draft
        told = cli(*words, status=1, before=lambda size=size: limit_files(size)).text
        assert "disk" in told or "room" in told
        assert not (tmp_path / "map.tif").exists()
    cli(*words)
    assert (tmp_path / "map.tif").exists()


def test_an_arms_folder_is_the_ensemble_of_its_folds(
    cli: CommandLine, finished: Path, scene: Path, whole: Path, tmp_path: Path
):
    for fold in ("fold-0", "fold-1"):  # one run twice: their mean is its own map
        shutil.copytree(finished, tmp_path / "optical" / fold)
    out = tmp_path / "map.tif"
    cli("predict", tmp_path / "optical", "--optical", scene, "--out", out, *FAST)
    assert same_map(out, whole)
    spread = pixels(tmp_path / "map_spread.tif")
    assert set(np.unique(spread)) <= {0, 255} and (spread == 0).any()


def test_two_workers_make_the_same_map(
    cli: CommandLine, finished: Path, scene: Path, whole: Path, tmp_path: Path
):
    out = tmp_path / "map.tif"
    words = ("predict", finished, "--optical", scene, "--out", out, *FAST)
    cli(*words, "--workers", 2)
    assert same_map(out, whole)


def test_a_worker_that_takes_several_tasks_makes_the_same_map(
    cli: CommandLine, finished: Path, scene: Path, whole: Path, tmp_path: Path
):
    from dask.distributed import LocalCluster

    out = tmp_path / "map.tif"
    words = ("predict", finished, "--optical", scene, "--out", out, *FAST)
    with LocalCluster(n_workers=1, threads_per_worker=3, dashboard_address=None) as cluster:
        cli(*words, "--scheduler", cluster.scheduler_address)
        address = cluster.scheduler_address
    assert same_map(out, whole)
    out.unlink()
    told = cli.quickly(*words, "--scheduler", address, status=1)
    assert f"--scheduler {address} does not answer" in told


def test_a_scheduler_without_workers_is_waited_for_and_told(
    cli: CommandLine, finished: Path, scene: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    from dask.distributed import LocalCluster

    words = ("predict", finished, "--optical", scene, "--out", tmp_path / "map.tif", *FAST)
    monkeypatch.setitem(cli.env, "ASM_PATIENCE", "2")
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        told = cli.quickly(*words, "--scheduler", cluster.scheduler_address, status=1)
    assert "has no worker after 2 s: start one" in told


def test_refusals(cli: CommandLine, finished: Path, scene: Path, tmp_path: Path):
    def told(*words: object) -> str:
        out = ("--out", tmp_path / "map.tif", "--no-page")
        return cli.quickly("predict", *words, *out, status=1)

    assert "--optical" in told(finished)
    assert "no.tif: does not exist" in told(finished, "--optical", tmp_path / "no.tif")
    assert "not a finished run" in told(tmp_path, "--optical", scene)
    assert "maps with optical" in told(finished, "--sar", scene)
    broken = tmp_path / "broken.tif"
    broken.write_bytes(scene.read_bytes()[:200_000])
    assert "truncated" in told(finished, "--optical", broken)
    assert "two runs or more" in told(finished, "--optical", scene, "--spread")
    assert not (tmp_path / "map.tif").exists()
