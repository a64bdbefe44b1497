"""Damaged and hostile files made by code, each given to a command in a process of its own.

`python tests/hostile.py 200` runs two hundred and tells status, seconds and memory of each.
"""

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import torch
from helpers import write_dataset
from pyogrio import write_dataframe
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine, from_origin
from shapely.geometry import shape

from asm_mapping.artefact import Card, save_artefact
from asm_mapping.cli import run_cli
from asm_mapping.fusion import build_model
from asm_mapping.sensors import SENSORS
from asm_mapping.unet import Architecture

SECONDS, MEGABYTES = 20, 1500  # before a refusal; at the peak
PLACE = {"crs": "EPSG:32735", "transform": from_origin(700_000, 9_800_000, 4.777, 4.777)}
SQUARE = {"type": "Polygon", "coordinates": [[[28.801, -1.809], [28.803, -1.809],
          [28.803, -1.8105], [28.801, -1.8105], [28.801, -1.809]]]}  # fmt: skip


# --- rasters ---------------------------------------------------------------------------------


SCENE, MAP = {"count": 4, "dtype": "uint16"}, {"count": 1, "dtype": "uint8"}
Maker = Callable[[Path, random.Random, dict], None]  # writes a file of that form


def picture(path: Path, form: dict = SCENE, side: int = 128, **options: object) -> Path:
    "Write a good scene, or a good map."
    values = np.random.default_rng(0).integers(0, 200, (form["count"], side, side))
    values *= 1 if form is MAP else 15
    form = form | {"driver": "GTiff", "height": side, "width": side} | PLACE | options
    with rasterio.open(path, "w", **form) as file:
        file.write(values.astype(form["dtype"]))
    return path


KINDS = (
    {}, {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"},
    {"compress": "lzw", "BIGTIFF": "YES"}, {"compress": "zstd"}, {"driver": "PNG"},
    {"compress": "lzma", "interleave": "band"}, {"driver": "JP2OpenJPEG"}, {"driver": "HFA"},
)  # fmt: skip


def cut(path: Path, rng: random.Random, form: dict) -> None:
    "A file that ends early."
    data = picture(path, form, **rng.choice(KINDS)).read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def flipped(path: Path, rng: random.Random, form: dict) -> None:
    "Bytes changed, most of them in the header."
    data = bytearray(picture(path, form, **rng.choice(KINDS)).read_bytes())
    for _ in range(rng.randint(1, 30)):
        end = min(600, len(data)) if rng.random() < 0.8 else len(data)
        data[rng.randrange(end)] = rng.choice((0, 255, rng.randrange(256)))
    path.write_bytes(data)


def claims(path: Path, rng: random.Random, form: dict) -> None:
    "A header of vast numbers."
    side, tile = (rng.choice((1, 300, 65_536, 10**6, 2**31 - 1, 2**32 - 1)) for _ in "ab")
    block = [(322, tile), (323, tile), (324, 8), (325, rng.choice((0, 99, 2**32 - 1)))]
    if rng.random() < 0.4:
        block = [(273, 8), (278, side), (279, rng.choice((0, 99, 2**32 - 1)))]
    more = [(258, rng.choice((1, 8, 64))), (259, rng.choice((1, 5, 7, 8, 50_000)))]
    more += [(262, 1), (277, rng.choice((1, 4, 1000, 65_535))), (339, rng.choice((1, 3, 6)))]
    tags = sorted([(256, side), (257, side), *block, *more])
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(200))


def bomb(path: Path, rng: random.Random, form: dict) -> None:
    "One deflated tile of gigabytes in a file of megabytes."
    side = rng.choice((8192, 16_384, 32_768))
    form = form | {"tiled": True, "blockxsize": side, "blockysize": side, "sparse_ok": True}
    form |= {"driver": "GTiff", "height": side, "width": side, "compress": "deflate"} | PLACE
    form["interleave"] = rng.choice(("pixel", "band"))
    with rasterio.open(path, "w", **form):
        pass
    with open(path, "ab") as file:
        file.write(zlib.compress(bytes(2**24)) * 8)


def sparse(path: Path, rng: random.Random, form: dict) -> None:
    "A million by a million pixels in some kilobytes."
    side, block = 10**6, rng.choice((256, 2048))
    form = form | {"driver": "GTiff", "height": side, "width": side}
    form |= {"tiled": True, "blockxsize": block, "blockysize": block, "sparse_ok": True}
    turn = from_origin(-5e6, 5e6, 10**7 / side, 10**7 / side)
    with rasterio.open(path, "w", crs="EPSG:3857", transform=turn, bigtiff="yes", **form):
        pass


def misplaced(path: Path, rng: random.Random, form: dict) -> None:
    "A grid that cannot be."
    odd = (0.0, 1e12, -10.0, 1e-12, float("nan"), float("inf"), 1e300, 10.0)
    turn = Affine(*(rng.choice(odd) for _ in range(6)))
    if rng.random() < 0.5:
        turn = Affine(rng.choice(odd), 0, rng.choice(odd), 0, -abs(rng.choice(odd)), 9.8e6)
    crs = rng.choice(("EPSG:32735", "EPSG:4326", "EPSG:3857", 'LOCAL_CS["a",UNIT["metre",1]]'))
    picture(path, form, transform=turn, crs=crs)


def odd_values(path: Path, rng: random.Random, form: dict) -> None:
    "Numbers that no sensor gives, and kinds that nobody expects."
    kind = rng.choice(("complex64", "float64", "int8", "uint64", "float32"))
    values = np.full((form["count"], 64, 64), rng.choice((0, 1)), kind)
    if kind.startswith("float"):
        values[:] = rng.choice((float("nan"), float("inf"), -1e308, 1e30))
    nodata = None if kind == "complex64" else rng.choice((None, 0, 1))
    form = form | {"driver": "GTiff", "height": 64, "width": 64, "dtype": kind} | PLACE
    with rasterio.open(path, "w", nodata=nodata, **form) as file:
        file.write(values)


def no_file(path: Path, rng: random.Random, form: dict = SCENE) -> None:
    "A pipe, a device, a folder, a link to nowhere, nothing."
    what = rng.randrange(6)
    if what == 0:
        os.mkfifo(path)
    elif what == 1:
        path.symlink_to("/dev/zero")
    elif what == 2:
        path.mkdir()
    elif what == 3:
        path.symlink_to(path.with_name("nowhere"))
    elif what == 4:
        path.write_bytes(rng.randbytes(rng.choice((0, 7, 5000))))
    else:
        picture(path, form)
        os.mkfifo(f"{path}.{rng.choice(('aux.xml', 'ovr', 'msk'))}")


def recipe(path: Path, rng: random.Random, form: dict) -> None:
    "A VRT that names what it should not, or does what it cannot."
    far = "http://127.0.0.1:9"
    good = picture(path.with_name("good.tif"), form).name
    os.mkfifo(path.with_name("pipe.tif"))
    source = rng.choice((
        good, path.name, "pipe.tif", "/dev/zero", "/etc/passwd", "none.tif", f"{far}/a.tif",
        f"/vsicurl/{far}/a.tif", f"WCS:{far}", "DERIVED_SUBDATASET:LOG:good.tif", good, good,
        "&lt;GDAL_WMS&gt;&lt;/GDAL_WMS&gt;", "vrt://good.tif", "/vsizip/a.zip/a.tif",
    ))  # fmt: skip
    more = rng.choice((
        "", '<PixelFunctionType>nosuch</PixelFunctionType>', "<PixelFunctionType>pow"
        "</PixelFunctionType>", "<PixelFunctionType>os.system</PixelFunctionType>"
        "<PixelFunctionLanguage>Python</PixelFunctionLanguage>",
    ))  # fmt: skip
    sub = ' subClass="VRTDerivedRasterBand"' if more else ""
    block = rng.choice(("", ' blockXSize="16384" blockYSize="16384"'))
    side = rng.choice((128, 128, 128, 10**6, 2**31 - 1, -1))
    kind = "UInt16" if form["dtype"] == "uint16" else "Byte"
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{band}"{sub}{block}>{more}<SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{source}</SourceFilename><SourceBand>{band}'
        "</SourceBand></SimpleSource></VRTRasterBand>"
        for band in range(1, form["count"] + 1)
    )
    start = rng.choice(("", "", "", '<!DOCTYPE a [<!ENTITY a "b">]>', "\xff\xd8\xff"))
    path.write_text(
        f'{start}<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>EPSG:32735</SRS>'
        f"<GeoTransform>700000,4.777,0,9800000,0,-4.777</GeoTransform>{bands}"
        + ("</VRTDataset>" if rng.random() < 0.9 else "<a>" * 10**5),
        encoding="latin-1",
    )


RASTERS: tuple[Maker, ...] = (
    cut, flipped, claims, bomb, sparse, misplaced, odd_values, no_file, recipe,
)  # fmt: skip


# --- texts -----------------------------------------------------------------------------------

TEXTS = (
    b"", b"{", b"[" * 10**6, b'{"a": ' * 10**5, b"[" + b"{}," * 10**6 + b"{}]", b"\xff\xfe",
    b'{"a": 1e999, "b": NaN}', b"9" * 10**6, b'{"cells": [' + b"[]," * 999 + b"[]]}",
    b'{"cells": 3, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}', b"\0" * 10**6,
    b'{"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": null}]}',
    b'{"type": "Polygon", "coordinates": [[[0, 0], [1e308, 0], [0, 1e308], [0, 0]]]}',
    b"<kml><Document></Document></kml>", b"<OGRVRTDataSource></OGRVRTDataSource>",
    b"SQLite format 3\0" + bytes(200), b"PAR1" + bytes(99) + b"PAR1",
    b"\0\0\x27\x0a" + bytes(96),
    b"a." * 99_999 + b"a = 1", b'bands = ["a"]\nunit = "x"', b"a,\n" * 10**6,
    b'{"type": "gdal_streamed_alg", "command_line": "gdal vector pipeline ! read /dev/zero"}',
)  # fmt: skip


def text(path: Path, rng: random.Random) -> None:
    "A text that is none, or one that needs the memory of a thousand."
    if rng.random() < 0.2:
        no_file(path, rng)
    else:
        path.write_bytes(rng.choice(TEXTS))


def shapes_folder(path: Path, rng: random.Random) -> None:
    "A FileGDB or a folder of shapefiles that is damaged, or leads astray."
    table = geopandas.GeoDataFrame(
        {"unsure": [0.0] * 9}, geometry=[shape(SQUARE)] * 9, crs=4326
    )
    write_dataframe(table, path, driver="OpenFileGDB", layer="mines")
    files = sorted(path.iterdir())
    what, one = rng.randrange(6), rng.choice(files)
    if what == 0:
        for one in rng.sample(files, 3):
            data = bytearray(one.read_bytes())
            for _ in range(rng.randint(1, 30)):
                data[rng.randrange(len(data))] = rng.choice((0, 255, rng.randrange(256)))
            one.write_bytes(data)
    elif what == 1:
        one.write_bytes(one.read_bytes()[: rng.randrange(one.stat().st_size)])
    elif what == 2:
        one.unlink()
        no_file(one, rng)
    elif what == 3:
        write_dataframe(table, path, driver="OpenFileGDB", layer="more", append=True)
    elif what == 4:
        (path / "a00000001.gdbtable").unlink()
        for name in ("a.shp", "b.shp")[: rng.randint(0, 2)]:
            write_dataframe(table, path / name)
    else:
        for number in range(11_000):
            (path / f"{number}.lock").touch()


def spoil_card(model: Path, rng: random.Random) -> None:
    "A card that asks for what its weights are not, or a damaged one."
    card = json.loads((model / "card.json").read_text())
    fields = card["architecture"]
    change = rng.choice((
        {"decoder_channels": [2048] * 5}, {"decoder_channels": [1] * 5}, {"ratio": 2},
        {"encoder": "resnext101_32x48d"}, {"encoder": "mit_b5"}, {"encoder": "tu-vit_giant"},
        {"optical_channels": 1000}, {"optical_channels": 10**30}, {"encoder": "../../x"},
        {"modality": "late_fusion"}, {"scse": True}, {"encoder": "tu-convnext_xxlarge"},
    ))  # fmt: skip
    fields |= change
    if rng.random() < 0.4:
        card["roles"]["optical"][rng.choice(("mean", "std"))] = rng.choice(
            ([0] * 4, [1e308] * 4, ["x"], [], [float("nan")] * 4)
        )
    (model / "card.json").write_text(json.dumps(card))
    (model / "SHA256SUMS").unlink(missing_ok=True)


def spoil_weights(model: Path, rng: random.Random) -> None:
    "Weights with a header that lies."
    path = model / "weights.safetensors"
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header = whole[8 : 8 + size]
    longer = header.replace(b'"shape":[', b'"shape":[9', 1)
    vast = header.replace(b"]", b",4294967296]", 1)
    path.write_bytes(rng.choice((
        b"", whole[:100], whole[: len(whole) // 2], struct.pack("<Q", 2**63) + whole[8:],
        struct.pack("<Q", 2**25) + b"{" * 2**25, struct.pack("<Q", len(longer)) + longer,
        struct.pack("<Q", len(vast)) + vast + whole[8 + size :], b"\x80\x04K\x01.",
    )))  # fmt: skip
    (model / "SHA256SUMS").unlink(missing_ok=True)


def spoil_manifest(path: Path, rng: random.Random) -> None:
    "A manifest or an index that is damaged, or points where it must not."
    good = path.read_text()
    root = path.with_suffix("")
    change = rng.randrange(7)
    if change == 0:
        text(root / "chips.csv", rng) if not (root / "chips.csv").unlink() else None
    elif change == 1:
        path.write_bytes(rng.choice(TEXTS))
    elif change == 2:
        path.write_text(good.replace(str(root), rng.choice(("/proc", "/dev", "/", "/sys"))))
    elif change == 3:
        path.write_text(good.replace("optical/", rng.choice(("../", "/etc/", "**/"))))
    elif change == 4:
        path.write_text(good + "\n[x]\n" + "".join(f"a{n}.b = {n}\n" for n in range(30_000)))
    elif change == 5:
        (root / "chips.csv").write_text("chip,group\n../../../etc/passwd,a\n" + "x" * 10**6)
    else:
        path.write_text(good.replace("[1]", f"[{rng.choice(('1e9', '2**99', '-1', '0'))}]"))


# --- commands --------------------------------------------------------------------------------


class Ground:
    "Good files, made once, and a folder for each case."

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = write_dataset(folder, "tiny")
        self.scene = picture(folder / "scene.tif")
        (folder / "mines.geojson").write_text(json.dumps(SQUARE))
        shape = Architecture("optical", 4, 0, encoder="tu-test_resnet",
                             decoder_channels=(16, 16, 8, 8, 8))  # fmt: skip
        sensor = SENSORS["planet_nicfi"]
        role = {"sensor": sensor.model_dump(), "derived": [], "channels": list(sensor.bands)}
        role |= {"mean": [0.2] * 4, "std": [0.1] * 4}
        words = {"modality": "optical", "ratio": 1, "dataset": "tiny", "target": "squares"}
        card = Card(architecture=asdict(shape), roles={"optical": role}, threshold=0.5, **words)
        save_artefact(folder / "run/model", build_model(shape), card)

    def case(self, number: int, seed: int) -> tuple[str, list[str]]:
        "Make the files of a case; return what it is and the command's words."
        rng, here = random.Random(seed * 10**6 + number), self.folder / f"case{number}"
        here.mkdir()
        kind = number % 20
        if kind < 13:
            return self.raster(here, rng, RASTERS[number % len(RASTERS)])
        if kind < 15:
            shutil.copytree(self.folder / "run", here / "run")
            spoil = (spoil_card, spoil_weights)[number % 2]
            spoil(here / "run/model", rng)
            return f"{spoil.__name__} predict", self.predict(here, here / "run", self.scene)
        if kind < 17:
            shutil.copytree(self.manifest.with_suffix(""), here / "tiny")
            words = self.manifest.read_text().replace(str(self.folder), str(here))
            (here / "tiny.toml").write_text(words)
            spoil_manifest(here / "tiny.toml", rng)
            return "manifest check", ["check", str(here / "tiny.toml")]
        return self.texts(here, rng, kind)

    def raster(self, here: Path, rng: random.Random, make: Maker) -> tuple[str, list[str]]:
        "Give a raster to one of the commands that read them."
        path, command = here / "x.tif", rng.choice(("check", "predict", "chips", "polygons"))
        if make is sparse and command == "polygons":  # hours of honest work in little memory
            command = "predict"
        name = f"{make.__name__} {command}"
        if command == "check":
            shutil.copytree(self.manifest.with_suffix(""), here / "tiny")
            words = self.manifest.read_text().replace(str(self.folder), str(here))
            (here / "tiny.toml").write_text(words)
            path = here / "tiny" / rng.choice(("optical", "sar", "mask")) / "c00.tif"
            path.unlink()
            make(path, rng, SCENE)
            return name, ["check", str(here / "tiny.toml")]
        make(path, rng, MAP if command == "polygons" else SCENE)
        if command == "predict":
            return name, self.predict(here, self.folder / "run", path)
        if command == "polygons":
            words = ["polygons", str(path), "--out", str(here / "sites.gpkg")]
            return name, [*words, "--threshold", "0.5"]
        labels, scene = self.folder / "mines.geojson", path
        if rng.random() < 0.3:
            labels, scene = path, self.scene
        return name, self.chips(here, labels, scene)

    def predict(self, here: Path, run: Path, scene: Path, *more: object) -> list[str]:
        "Word a map."
        words = ("predict", run, "--optical", scene, "--out", here / "map.tif", "--px", 128,
                 "--engine", "eager", "--threads", 1, "--no-page", *more)  # fmt: skip
        return [str(word) for word in words]

    def chips(self, here: Path, labels: Path, scene: Path, *more: object) -> list[str]:
        "Word a cutting of chips."
        words = ("chips", "--labels", labels, "--optical", scene, "--out", here / "cut",
                 "--chip-px", 32, *more)  # fmt: skip
        return [str(word) for word in words]

    def texts(self, here: Path, rng: random.Random, kind: int) -> tuple[str, list[str]]:
        "Give a text to a command that reads one."
        ending = rng.choice((".geojson", ".gpkg", ".shp", ".parquet", ".kml", ".gdb"))
        make = shapes_folder if ending == ".gdb" else text
        if kind == 17:
            make(path := here / f"x{ending}", rng)
            return "shapes chips", self.chips(here, path, self.scene)
        if kind == 18:
            make(path := here / f"x{ending}", rng)
            area = self.predict(here, self.folder / "run", self.scene, "--area", path)
            return "shapes predict", area
        if rng.random() < 0.3:
            text(path := here / "x.toml", rng)
            more = ("--optical-sensor", path)
            return "sensor chips", self.chips(
                here, self.folder / "mines.geojson", self.scene, *more
            )
        name = f"case{here.name[4:]}"
        folder = self.folder / "runs" / name / "optical/fold-0"
        folder.mkdir(parents=True)
        what = rng.choice(("run.ipynb", "run.ipynb", "metrics.json", "settings.json"))
        text(folder / what, rng)
        command = "report" if what == "run.ipynb" else "runs"
        return f"{what} {command}", [command, name]


# --- running ---------------------------------------------------------------------------------


def obey(words: list[str], out: Path) -> None:
    "Run a command in this (forked) process; what it says goes to a file."
    told = io.StringIO()
    status = 0
    sys.argv = ["asm-mapping", *words]
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            run_cli()
        except SystemExit as error:
            status = error.code or 0
        except BaseException:
            status = 70
            told.write(traceback.format_exc())
    out.write_text(told.getvalue(), errors="replace")
    os._exit(status if isinstance(status, int) else 1)


def tried(words: list[str], out: Path, limit: float) -> dict[str, object]:
    "Fork, run a command, and tell its status, seconds and peak of memory."
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        obey(words, out)
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        seconds = time.monotonic() - began
        if done:
            break
        if seconds > limit:
            os.kill(child, signal.SIGKILL)
            _, status, used = os.wait4(child, 0)
            break
        time.sleep(0.01)
    code = os.waitstatus_to_exitcode(status)
    text = out.read_text() if out.exists() else ""
    cpu = used.ru_utime + used.ru_stime
    return {"status": code, "seconds": round(seconds, 2), "cpu": round(cpu, 2),
            "megabytes": used.ru_maxrss // 1024, "told": text[-600:]}  # fmt: skip


def run_all(count: int, seed: int = 0, limit: float = 100) -> Iterator[dict[str, object]]:
    "Make and run cases one after another."
    import warnings

    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    torch.set_num_threads(1)  # threads do not live on in a forked process
    folder = Path(tempfile.mkdtemp())
    os.environ |= {"ASM_DATA": str(folder / "data"), "ASM_RUNS": str(folder / "runs")}
    try:
        ground = Ground(folder)
        for number in range(count):
            what, words = ground.case(number, seed)
            out = folder / "told.txt"
            out.unlink(missing_ok=True)
            yield {"number": number, "what": what} | tried(words, out, limit)
            shutil.rmtree(folder / f"case{number}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    for found in run_all(int(sys.argv[1]), *map(int, sys.argv[2:])):
        print(json.dumps(found), flush=True)
