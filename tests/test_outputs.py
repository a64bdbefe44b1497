"A person's files are left alone by every command; two jobs never share an output."

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import geopandas
import numpy as np
import pytest
import shapely
from helpers import PIXEL_M, SMALL, CommandLine, write_raster

from asm_mapping.config import only_one
from asm_mapping.runs import map_page

FAST = ("--px", 128, "--engine", "eager", "--threads", 1, "--no-page")
CHIPS = ("--chip-px", 32, "--background-share", 0, "--optical-sensor", "planet_nicfi")
BESIDE = (
    "map.tif", "map_class.tif", "map_sensors.tif", "map.qml", "map_class.qml",
    "map_sensors.qml", "map.qgs", "map_summary.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "Write a small optical scene with a bright square in its red band."
    generator = np.random.default_rng(3)
    optical = generator.normal(2000, 300, (4, 160, 160))
    optical[:, 40:90, 60:110] += 1500
    path = tmp_path_factory.mktemp("scene") / "optical.tif"
    write_raster(path, optical.clip(1, 60_000).astype(np.uint16), PIXEL_M, 700_000)
    return path


@pytest.fixture(scope="module")
def mines(scene: Path) -> Path:
    "Draw the bright square."
    square = shapely.box(700_300, 9_799_600, 700_500, 9_799_800)
    path = scene.with_name("mines.gpkg")
    geopandas.GeoDataFrame(geometry=[square], crs="EPSG:32735").to_file(path)
    return path


@pytest.fixture(scope="module")
def made(cli: CommandLine, finished: Path, scene: Path) -> Path:
    "A map."
    out = cli.root.parent / "made/map.tif"
    cli.quickly("predict", finished, "--optical", scene, "--out", out, *FAST, status=0)
    return out


def content(folder: Path) -> dict[str, bytes]:
    "Read every file of a folder, with the folders and links that are in it."
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_file = path.is_file() and not path.is_symlink()
        found[name] = path.read_bytes() if is_file else b"link" if path.is_symlink() else b""
    return found


def put(folder: Path, *names: str) -> None:
    "Put a person's files into a folder."
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"a person's {name}")


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    "Check that a folder is left as it is."
    before = content(folder)
    yield
    assert content(folder) == before


def test_a_map_among_files_that_were_once_in_its_way(
    cli: CommandLine, finished: Path, scene: Path, tmp_path: Path
):
    names = "map_work/thesis.txt map_partial.tif map_class_partial.tif map_spread.tif"
    names = (*names.split(), "map_partial.qml", ".map.tif.lock", ".map_work.lock", "map.txt")
    put(tmp_path, *names)
    before = content(tmp_path)
    words = ("predict", finished, "--optical", scene, "--out", tmp_path / "map.tif", *FAST)
    cli.quickly(*words, status=0)
    after = content(tmp_path)
    assert {name: after[name] for name in before} == before
    news = after.keys() - before.keys()
    assert news == {*BESIDE, *(f".map.tif.asm{x}" for x in ("", "/.writer", "/written.json"))}
    told = cli.quickly("polygons", tmp_path / "map.tif", "--out", tmp_path / "s.gpkg", status=0)
    assert "wrote" in told


@pytest.mark.parametrize("name", [*BESIDE, ".map.tif.asm/thesis.txt", ".map.tif.asm"])
def test_a_map_refuses_a_taken_name(
    cli: CommandLine, finished: Path, scene: Path, tmp_path: Path, name: str
):
    put(tmp_path, name)
    words = ("predict", finished, "--optical", scene, "--out", tmp_path / "map.tif", *FAST)
    for more in ((), ("--overwrite",)):
        with unchanged(tmp_path):
            told = cli.quickly(*words, *more, status=1)
        assert str(tmp_path / name.partition("/")[0]) in told and "move" in told


def test_a_map_never_replaces_what_it_is_made_from(
    cli: CommandLine, finished: Path, scene: Path, made: Path, tmp_path: Path
):
    for name in ("map_class.tif", "tile.tif"):
        (tmp_path / name).write_bytes(scene.read_bytes())
    (tmp_path / "link_class.tif").symlink_to("tile.tif")
    os.link(tmp_path / "tile.tif", tmp_path / "hard.tif")
    vrt = '<VRTDataset rasterXSize="160" rasterYSize="160"><SRS>EPSG:32735</SRS>'
    vrt += f"<GeoTransform>700000, {PIXEL_M}, 0, 9800000, 0, -{PIXEL_M}</GeoTransform>"
    for band in range(1, 5):
        source = f"<SourceFilename>{tmp_path / 'tile.tif'}</SourceFilename>"
        source = f"<SimpleSource>{source}<SourceBand>{band}</SourceBand></SimpleSource>"
        vrt += f'<VRTRasterBand dataType="UInt16" band="{band}">{source}</VRTRasterBand>'
    (tmp_path / "mosaic.vrt").write_text(vrt + "</VRTDataset>")
    with unchanged(tmp_path):
        for given, out in (
            ("map_class.tif", "map.tif"),
            ("tile.tif", "tile.tif"),
            ("tile.tif", "link.tif"),
            ("tile.tif", "hard.tif"),
            ("mosaic.vrt", "tile.tif"),
        ):
            words = (
                "predict",
                finished,
                "--optical",
                tmp_path / given,
                "--out",
                tmp_path / out,
            )
            told = cli.quickly(*words, "--overwrite", *FAST, status=1)
            assert "is read as an input" in told
    (tmp_path / "sites.gpkg").symlink_to(made)
    told = cli.quickly("polygons", made, "--out", tmp_path / "sites.gpkg", status=1)
    assert "is read as an input" in told


def test_own_results_are_replaced_where_that_is_asked_for(
    cli: CommandLine, finished: Path, scene: Path, tmp_path: Path
):
    out, sites = tmp_path / "map.tif", tmp_path / "sites.gpkg"
    predict = ("predict", finished, "--optical", scene, "--out", out, *FAST)
    polygons = ("polygons", out, "--out", sites)
    for words, other in ((predict, "--turns"), (polygons, "--simplify-m=9")):
        cli.quickly(*words, status=0)
        before = content(tmp_path)
        assert "already there" in cli.quickly(*words, status=0)
        told = cli.quickly(*words, other, status=1)
        assert "--overwrite replaces it" in told
        assert content(tmp_path) == before
        cli.quickly(*words, other, "--overwrite", status=0)
        after, name = content(tmp_path), words[words.index("--out") + 1].name
        assert after[name] != before[name]
    (tmp_path / "map.qml").write_text("a style of my own")
    sites.write_bytes(sites.read_bytes() + b"edited")
    with unchanged(tmp_path):
        assert "map.qml" in cli.quickly(*predict, "--overwrite", status=1)
        assert "sites.gpkg" in cli.quickly(*polygons, "--overwrite", status=1)


def test_a_map_leaves_sites_of_before(
    cli: CommandLine, finished: Path, scene: Path, made: Path, tmp_path: Path
):
    cli.quickly("polygons", made, "--out", tmp_path / "map_sites.gpkg", status=0)
    words = ("predict", finished, "--optical", scene, "--out", tmp_path / "map.tif", *FAST[:-1])
    with unchanged(tmp_path):
        told = cli.quickly(*words, status=1)
    assert "map_sites.gpkg exists" in told and "--overwrite" in told


def test_sites_leave_a_persons_files(cli: CommandLine, made: Path, tmp_path: Path):
    put(tmp_path, "sites_partial.gpkg", "sites.gpkg.lock", ".sites.gpkg.lock")
    before = content(tmp_path)
    cli.quickly("polygons", made, "--out", tmp_path / "sites.gpkg", status=0)
    assert content(tmp_path).items() >= before.items()
    for name in ("a.gpkg", "a.gpkg-wal", "a.gpkg-journal", "a.parquet", ".a.geojson.asm/x"):
        put(tmp_path, name)
        out = tmp_path / name.partition("-")[0].removesuffix(".asm/x").lstrip(".")
        with unchanged(tmp_path):
            told = cli.quickly("polygons", made, "--out", out, "--overwrite", status=1)
        assert name.partition("/")[0] in told
        (tmp_path / name).unlink()


def test_chips_leave_a_persons_folder(
    cli: CommandLine, scene: Path, mines: Path, tmp_path: Path
):
    words = ("chips", "--optical", scene, "--labels", mines, *CHIPS, "--out")
    put(tmp_path, "kivu_partial/thesis.txt", ".kivu.lock")
    before = content(tmp_path)
    cli.quickly(*words, tmp_path / "kivu", status=0)
    assert content(tmp_path).items() >= before.items()
    assert "already" in cli.quickly(*words, tmp_path / "kivu", status=0)
    put(tmp_path, "theirs/theirs.toml", "file")
    with unchanged(tmp_path):
        for name in ("theirs", "file"):
            assert f"{name} exists" in cli.quickly(*words, tmp_path / name, status=1)
        assert "exists" in cli.quickly(*words, tmp_path / "kivu", "--seed", 1, status=1)


def test_scores_leave_a_persons_file(
    cli: CommandLine, finished: Path, dataset: Path, tmp_path: Path
):
    words = ("evaluate", finished, dataset, "--json")
    put(tmp_path, "mine.json", "scores_partial.json")
    before = content(tmp_path)
    cli.quickly(*words, tmp_path / "scores.json", status=0)
    told = cli.quickly(*words, tmp_path / "scores.json", status=1)
    assert "--overwrite" in told
    cli.quickly(*words, tmp_path / "scores.json", "--overwrite", status=0)
    for more in ((), ("--overwrite",)):
        assert "mine.json" in cli.quickly(*words, tmp_path / "mine.json", *more, status=1)
        assert "metrics.json" in cli.quickly(*words, finished / "metrics.json", *more, status=1)
    assert content(tmp_path).items() >= before.items()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("optical/fold-1/thesis.txt", "run {} --modality optical --fold 1"),
        ("optical/fold-1_partial/splits.csv", "run {} --modality optical --fold 1"),
        ("optical/.fold-1.asm/thesis.txt", "run {} --modality optical --fold 1"),
        ("compare.ipynb", "compare {} --modalities optical"),
        ("explore.ipynb", "explore {}"),
        (
            "tune/optical-fold-0/best.toml",
            "tune {} --modality optical --trials 1",
        ),
        (
            "tune/optical-fold-0/trials.csv",
            "tune {} --modality optical --trials 1",
        ),
        (
            "tune/optical-fold-0/tune.ipynb",
            "tune {} --modality optical --trials 1",
        ),
    ],
)
def test_runs_leave_a_persons_files(
    cli: CommandLine, dataset: Path, tmp_path: Path, place: str, words: str
):
    folder = tmp_path / "tiny"
    put(folder, place, "optical/fold-1_partial.txt", "kernel.log")
    words = [word.format(dataset) for word in words.split()]
    more = SMALL if words[0] != "explore" else ()
    before = content(folder)
    with mock.patch.dict(cli.env, ASM_RUNS=str(tmp_path)):
        told = cli.quickly(*words, *more, status=1)
    assert place.split("/")[-1] in told or place.split("/")[-2] in told
    assert content(folder).items() >= before.items()


def test_a_page_of_a_map_is_refused_before_the_map(
    cli: CommandLine, finished: Path, scene: Path, tmp_path: Path
):
    page = f"maps/{map_page(tmp_path / 'map.tif').name}"
    put(tmp_path, page, "maps/kernel.log")
    words = ("predict", finished, "--optical", scene, "--out", tmp_path / "map.tif", *FAST[:-1])
    with mock.patch.dict(cli.env, ASM_RUNS=str(tmp_path)), unchanged(tmp_path):
        assert f"{page} exists" in cli.quickly(*words, status=1)


def test_a_report_leaves_a_persons_files(cli: CommandLine, finished: Path):
    reports = cli.root / "reports"
    theirs = ("pages_partial/thesis.txt", "_site_partial/thesis.txt")
    put(reports, *theirs)
    before = {name: content(reports)[name] for name in theirs}
    cli.quickly("report", "tiny", status=0)
    assert content(reports).items() >= before.items()
    for name in ("pages/notes.txt", "_site/notes.txt", "_site/index.html"):
        kept = (reports / name).read_bytes() if (reports / name).exists() else None
        put(reports, name)
        with unchanged(reports):
            told = cli.quickly("report", "tiny", status=1)
        assert Path(name).name in told and "did not write" in told
        (reports / name).unlink()
        if kept:
            (reports / name).write_bytes(kept)
    cli.quickly("report", "tiny", status=0)


def test_a_copy_of_8_bits_leaves_a_persons_files(cli: CommandLine, finished: Path):
    pytest.importorskip("openvino")
    put(finished, "model/int8/network.xml")
    with unchanged(finished):
        assert "int8 holds network.xml" in cli.quickly("quantise", finished, status=1)
    (finished / "model/int8/network.xml").unlink()
    (finished / "model/int8").rmdir()


def test_one_job_for_an_output(
    cli: CommandLine, finished: Path, dataset: Path, scene: Path, mines: Path, made: Path,
    tmp_path: Path,
):  # fmt: skip
    reports, runs = cli.root / "reports", cli.runs / "tiny"
    jobs = {
        tmp_path / "m.tif": ("predict", finished, "--optical", scene, *FAST),
        tmp_path / "s.gpkg": ("polygons", made),
        tmp_path / "kivu": ("chips", "--optical", scene, "--labels", mines, *CHIPS),
        reports / "_site": ("report", "tiny"),
        runs / "compare.ipynb": ("compare", dataset, "--modalities", "optical", *SMALL),
        runs / "explore.ipynb": ("explore", dataset),
    }
    for out, words in jobs.items():
        more = ("--out", out) if out.parent == tmp_path else ()
        with only_one(out):
            told = cli.quickly(*words, *more, status=1)
        assert f"another process is writing {out} (process {os.getpid()} of" in told
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_fails_leaves_the_name_free(
    cli: CommandLine, finished: Path, scene: Path, tmp_path: Path
):
    words = ("predict", finished, "--optical", scene, "--out", tmp_path / "map.tif")
    quick = ("--px", 128, "--threads", 1, "--no-page")
    told = cli.quickly(*words, *quick, "--engine", "int8", status=1)
    assert "not quantised" in told and list(tmp_path.iterdir()) == []
    cli.quickly(*words, *quick, "--engine", "eager", status=0)


def test_places_that_take_no_file(cli: CommandLine, finished: Path, scene: Path):
    words = ("predict", finished, "--optical", scene, *FAST, "--out", "/proc/x.tif")
    told = cli.quickly(*words, status=1)
    assert "/proc/x.tif cannot be written: /proc takes no new folder" in told
