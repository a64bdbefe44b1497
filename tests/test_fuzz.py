"""Bad input always gets a sentence: tried at random, the same each time."""

import copy
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from helpers import CommandLine, change_raster, write_dataset, write_raster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from asm_mapping.artefact import Card, architecture_of, load_artefact, load_card, save_artefact
from asm_mapping.augment import Augmentation
from asm_mapping.catalog import inspect_chip, list_chips, read_manifest
from asm_mapping.checksums import CHECKSUMS, write_checksums
from asm_mapping.config import UserError, read_json, runs_root, write_json
from asm_mapping.dataset import measure_statistics
from asm_mapping.evaluation import evaluate_run
from asm_mapping.fusion import build_model
from asm_mapping.run import RECORDED, open_run
from asm_mapping.scoring import finish_run, score_run
from asm_mapping.sensors import SENSORS
from asm_mapping.settings import RunSettings, make_settings, plan_steps
from asm_mapping.sheet import read_chip
from asm_mapping.splits import make_splits
from asm_mapping.store import prepare
from asm_mapping.training import fit
from asm_mapping.unet import Architecture

SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
settings.register_profile(
    "same", derandomize=True, database=None, deadline=None, suppress_health_check=SLOW
)
settings.load_profile("same")


def told(work: Callable[[], Any]) -> Any:
    "Do what may be refused: its result, or None and a sentence fit to print."
    try:
        return work()
    except UserError as error:
        text = str(error)
        assert text and len(text) < 3000 and "\n" not in text and "\0" not in text, text
        return None


WORDS = ("", " ", "..", "/", "a/b", "a\nb", "\0", "\x1b[1m", "é名", "²", "x" * 300, "NA", "nan")
PATTERNS = ("{chip}", "{chip", "chip}", "{chip}{chip}", "**/{chip}", "[{chip}", "(?P<a>{chip}")
NUMBERS = (0, 1, -1, 2, 10**9, 10**30, 0.5, -0.5, 1e-320, 1e308, math.inf, -math.inf, math.nan)
anything = st.recursive(
    st.sampled_from((*WORDS, *PATTERNS, *NUMBERS, True, False)) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


def places(value: Any, above: tuple = ()) -> Iterator[tuple]:
    "Name every key and item of nested tables and lists."
    inner = enumerate(value) if isinstance(value, list) else ()
    for key, item in value.items() if isinstance(value, dict) else inner:
        yield (*above, key)
        yield from places(item, (*above, key))


def spoiled(value: Any, data: st.DataObject, extra: tuple[tuple, ...] = ()) -> Any:
    "Copy nested tables with one to three places changed or gone."
    value = copy.deepcopy(value)
    for _ in range(data.draw(st.integers(1, 3))):
        *above, last = data.draw(st.sampled_from([*places(value), *extra]))
        inner = value
        for key in above:
            inner = inner[key] if isinstance(inner, dict) and key in inner else None
        if isinstance(inner, dict):
            inner[last] = data.draw(anything)
            if data.draw(st.integers(0, 5)) == 0:
                del inner[last]
    return value


def toml(value: Any) -> str:
    "Write a value as TOML."
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(k))} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    text = str(value).lower()
    return text if isinstance(value, bool | int) or "." in text or "n" in text else f"{text}.0"


# --- a small dataset, once -------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    "A folder with data and runs of its own, and the tiny dataset."
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASM_DATA", str(folder / "data"))
        patch.setenv("ASM_RUNS", str(folder / "runs"))
        write_dataset(folder, "tiny")
        yield folder


@pytest.fixture(scope="module")
def fields(home: Path) -> dict[str, Any]:
    "The manifest's tables."
    return tomllib.loads((home / "tiny.toml").read_text())


# --- manifests and index tables --------------------------------------------------------------

OPTIONAL = ("nodata", "ratio", "derived", "invalid_with", "sensor")
MORE = (
    ("exclude",), ("mask", "negative"), ("index", "chip"), ("splits", "block_m"), ("x",),
    *((role, key) for role in ("optical", "sar") for key in OPTIONAL),
)  # fmt: skip


@settings(max_examples=300)
@given(data=st.data())
def test_a_manifest_is_right_or_told(home: Path, fields: dict, data: st.DataObject):
    changed = spoiled(fields, data, MORE)
    path = home / "changed.toml"
    path.write_text("\n".join(f"{toml(str(k))} = {toml(v)}" for k, v in changed.items()))
    manifest = told(lambda: read_manifest(path))
    if manifest is not None:
        assert len(manifest.name) <= 80 and "/" not in manifest.name
        chips = told(lambda: list_chips(manifest))
        for file in () if chips is None else chips[list(manifest.parts)].to_numpy().ravel():
            assert (manifest.root / file).is_relative_to(manifest.root)


@settings(max_examples=100)
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode()))
def test_a_file_that_is_no_manifest_is_told(home: Path, content: bytes):
    (home / "none.toml").write_bytes(content)
    assert told(lambda: read_manifest(home / "none.toml")) is None


csv_text = st.text(st.sampled_from('abc07,;"\n\r\0 é\ufeff\x1b'), max_size=40)


@settings(max_examples=200)
@given(
    header=st.sampled_from(("chip,group\n", "chip;group\n", "\ufeffchip,group\n", "")),
    text=csv_text,
)
def test_an_index_is_read_whole_or_told(home: Path, header: str, text: str):
    (home / "tiny/odd.csv").write_text(header + text, encoding="utf-8", newline="")
    path = home / "odd.toml"
    path.write_text((home / "tiny.toml").read_text().replace("chips.csv", "odd.csv"))
    chips = told(lambda: list_chips(read_manifest(path)))
    if chips is not None:
        lines = [line for line in (header + text).splitlines() if line][1:]
        assert chips["indexed"].sum() <= len(lines)
        assert all(name.isprintable() or name == "\ufeff" for name in chips["chip"])


# --- rasters ---------------------------------------------------------------------------------

KINDS = {
    "strips": {}, "tiles": {"tiled": True, "blockxsize": 16, "blockysize": 16},
    "deflate": {"compress": "deflate"}, "big": {"BIGTIFF": "YES", "compress": "lzw"},
    "png": {"driver": "PNG"},
}  # fmt: skip


@pytest.fixture(scope="module")
def files(home: Path) -> dict[str, bytes]:
    "One small chip in every format."
    values, found = np.arange(20 * 23, dtype=np.uint8).reshape(1, 20, 23), {}
    place = {"crs": "EPSG:32735", "transform": from_origin(3e5, 98e5, 10, 10)}
    for kind, options in KINDS.items():
        options = {"driver": "GTiff"} | ({} if kind == "png" else place) | options
        with rasterio.open(
            home / "a.tif", "w", count=1, height=20, width=23, dtype="uint8", **options
        ) as file:
            file.write(values)
        found[kind] = (home / "a.tif").read_bytes()
    return found


def chip_of(home: Path, content: bytes, part: str = "optical") -> list[str]:
    "Put a file into a dataset of one chip, read it, and tell the problems."
    root = home / "one"
    root.mkdir(exist_ok=True)
    (root / "one.toml").write_text(
        'name = "one"\nroot = "."\ntarget = "t"\nlicence = "l"\nsource = "s"\n'
        'optical = {path = "optical_{chip}.tif", sensor = {bands = ["a"], pixel_m = 10, '
        'unit = "digital_number"}}\nmask = {path = "mask_{chip}.tif", positive = [1]}\n'
    )
    good = np.zeros((1, 20, 23), np.uint8)
    for name in ("optical", "mask"):
        (root / f"{name}_a.tif").unlink(missing_ok=True)  # GDAL stumbles over a broken one
        write_raster(root / f"{name}_a.tif", good, 10, 3e5)
    (root / f"{part}_a.tif").write_bytes(content)
    manifest = read_manifest(root / "one.toml")
    record = inspect_chip(manifest, list_chips(manifest).iloc[0].to_dict(), hashes={})
    assert record.problems or record.valid["optical"].shape == record.mask.shape
    return [str(problem) for problem in record.problems]


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_never_a_chip(home: Path, files: dict[str, bytes], kind: str):
    whole = files[kind]
    for length in {*range(0, len(whole), 23), 1, 7, 8, 15, 16, len(whole) - 1}:
        assert chip_of(home, whole[:length]), f"{kind} cut at {length} of {len(whole)}"


@settings(max_examples=200)
@given(kind=st.sampled_from(sorted(KINDS)), data=st.data())
def test_a_damaged_file_never_stops_the_check(home: Path, files: dict, kind: str, data: Any):
    spoilt = bytearray(files[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, min(len(spoilt), 400) - 1))
        spoilt[place] = data.draw(st.sampled_from((0, 255, spoilt[place] ^ 1, 128)))
    for problem in chip_of(
        home, bytes(spoilt), data.draw(st.sampled_from(("optical", "mask")))
    ):
        assert problem.isprintable() and len(problem) < 600, problem


def tiff_header(side: int, compression: int, tile: int) -> bytes:
    "A TIFF of a few bytes that claims `side` x `side` pixels."
    block = [(322, tile), (323, tile), (324, 8), (325, 99)] if tile else [(278, side)]
    strips = [] if tile else [(273, 8), (279, 99)]
    tags = sorted(
        [(256, side), (257, side), (258, 8), (259, compression), (262, 1), *block, *strips]
    )
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(200)


def memory_kb(what: str) -> int:
    "Read a figure of this process's memory: VmRSS now, VmHWM at its peak."
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


@pytest.mark.parametrize("side", [30_000, 10**6, 2**31 - 1, 2**32 - 1])
@pytest.mark.parametrize(("compression", "tile"), [(1, 0), (8, 0), (8, 256)])
def test_a_header_that_promises_too_much_costs_nothing(home, side, compression, tile):
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory_kb("VmRSS")
    assert chip_of(home, tiff_header(side, compression, tile))
    assert memory_kb("VmHWM") - before < 100_000


def test_pipes_devices_and_folders_are_no_chips(home: Path):
    os.mkfifo(home / "pipe.tif")
    for path in (home / "pipe.tif", Path("/dev/zero"), home, home / "none.tif"):
        assert told(lambda path=path: read_chip(path, None)) is None


# --- settings --------------------------------------------------------------------------------


@settings(max_examples=400)
@given(given=st.dictionaries(st.sampled_from([*RunSettings.model_fields, "x"]), anything))
def test_settings_are_usable_or_told(home: Path, given: dict[str, Any]):
    made = told(lambda: make_settings(**given))
    if made is not None:
        rounds, steps = plan_steps(made, 1e7, 224)
        assert 0 < rounds * steps < 2 * 10**7 and made.batch_size * max(made.chip_px, 1) < 10**7
        assert (runs_root() / made.name).resolve().parent in (runs_root(), runs_root().parent)
        assert (runs_root() / made.name).resolve() != runs_root().parent
        assert made.fold == "final" or int(made.fold) >= 0
        assert sum(map(int, made.decoder_channels.split(","))) < 20_000
        strength = Augmentation().scaled(made.augmentation)
        assert math.isfinite(strength.looks) and strength.looks < 1e6
        assert np.random.default_rng(made.seed) and torch.manual_seed(made.seed)


# --- models ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(home: Path) -> Path:
    "A model of radar, as a run keeps it."
    shape = Architecture("sar", 0, 2, decoder_channels=(16,) * 5, ratio=2)
    sensor = SENSORS["sentinel1"].model_dump()
    sar = {
        "sensor": sensor,
        "derived": [],
        "channels": ["VV", "VH"],
        "mean": [-9, -9],
        "std": [2, 2],
    }
    words = {
        "modality": "sar",
        "ratio": 2,
        "dataset": "tiny",
        "target": "squares",
        "threshold": 0.4,
    }
    torch.manual_seed(0)
    card = Card(architecture=asdict(shape), roles={"sar": sar}, **words)
    save_artefact(home / "model", build_model(shape), card)
    return home / "model"


@settings(max_examples=300)
@given(data=st.data())
def test_a_card_is_right_or_told(home: Path, model: Path, data: st.DataObject):
    kept = json.loads((model / "card.json").read_text())
    (home / "card").mkdir(exist_ok=True)
    (home / "card/card.json").write_text(json.dumps(spoiled(kept, data)))
    card = told(lambda: load_card(home / "card"))
    if card is not None:
        assert max(architecture_of(card).decoder_channels) <= 2048
        assert all(
            math.isfinite(v) and v > 0 for part in card.roles.values() for v in part["std"]
        )


@settings(max_examples=25)
@given(data=st.data())
def test_spoiled_weights_are_told(home: Path, model: Path, data: st.DataObject):
    whole = (model / "weights.safetensors").read_bytes()
    head = 8 + struct.unpack("<Q", whole[:8])[0]
    if data.draw(st.booleans()):
        content = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        place = data.draw(st.integers(0, 7) | st.integers(8, head // 3))
        content = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))])
        content += whole[place + 1 :]
    shutil.copytree(model, home / "spoilt", dirs_exist_ok=True)
    (home / "spoilt" / CHECKSUMS).unlink()  # else no spoilt file is ever opened
    (home / "spoilt/weights.safetensors").write_bytes(content)
    told(lambda: load_artefact(home / "spoilt"))


# --- run folders -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(home: Path, model: Path) -> Path:
    "What `evaluate` needs of a finished run, of a time before runs had records."
    manifest = read_manifest(home / "tiny.toml")
    store, folder = prepare(manifest, progress=False), home / "finished"
    shutil.copytree(model, folder / "model")
    (folder / "model" / CHECKSUMS).unlink()
    parts = make_splits(store.chips, manifest.splits)[["chip", "unit", "0"]]
    parts.columns = ["chip", "unit", "part"]
    parts.to_csv(folder / "splits.csv", index=False)
    store.chips[parts["part"] != "test"].to_parquet(folder / "seen_chips.parquet")
    for name, value in {"metrics": {"test": {}}, "provenance": {"data": store.key}}.items():
        write_json(folder / f"{name}.json", value)
    return folder


def test_a_whole_run_is_evaluated(home: Path, run: Path):
    result = evaluate_run(run, read_manifest(home / "tiny.toml"))
    assert result["own_test_chips"] and result["scores"]["pixels"] > 0


FILES = (
    "metrics.json",
    "provenance.json",
    "splits.csv",
    "model/card.json",
    "model/weights.safetensors",
)


@pytest.mark.parametrize("file", [*FILES, "seen_chips.parquet"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\0\xfe", b'{"data": 3}'])
def test_a_broken_run_is_told(home: Path, run: Path, file: str, content: bytes | None):
    broken, text = home / "broken", (home / "tiny.toml").read_text()
    shutil.rmtree(broken, ignore_errors=True)
    shutil.copytree(run, broken)
    (broken / file).unlink()
    if content is not None:
        (broken / file).write_bytes(content)
    path = home / "again.toml"  # other chips than the run's own: what it has seen counts
    path.write_text('exclude = ["c00"]\n' + text if file == "seen_chips.parquet" else text)
    scores = told(lambda: evaluate_run(broken, read_manifest(path)))
    harmless = {
        "metrics.json": content is not None,
        "provenance.json": content == b'{"data": 3}',
    }
    assert scores is None or harmless.get(file, False)


@pytest.mark.parametrize("file", [*FILES, "seen_chips.parquet", CHECKSUMS])
@pytest.mark.parametrize("gone", [False, True])
def test_a_changed_run_is_refused(home: Path, run: Path, file: str, gone: bool):
    changed = home / "changed"
    shutil.rmtree(changed, ignore_errors=True)
    shutil.copytree(run, changed)
    write_json(
        changed / "provenance.json",
        read_json(run / "provenance.json") | {"checksums": CHECKSUMS},
    )
    write_checksums(changed, RECORDED)
    path, content = changed / file, (changed / file).read_bytes()
    path.write_bytes(content + b" ")
    if gone:
        path.unlink()
    with pytest.raises(UserError, match=path.name):
        evaluate_run(changed, read_manifest(home / "tiny.toml"))
    path.write_bytes(content)
    assert evaluate_run(changed, read_manifest(home / "tiny.toml"))["own_test_chips"]


@settings(max_examples=150)
@given(content=st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda i: st.lists(i) | st.dictionaries(st.text(), i)
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_json_is_an_object_or_told(home: Path, content: bytes):
    (home / "any.json").write_bytes(content)
    found = told(lambda: read_json(home / "any.json"))
    assert found is None or isinstance(found, dict)
    assert found is None or "absent" in found or told(lambda: found["absent"]) is None


# --- data with traps -------------------------------------------------------------------------


def every(part: str, change: Callable, chips: slice = slice(None)) -> Callable[[Path], None]:
    "Change a part's files, of all chips or some."
    return lambda root: [
        change_raster(f, change) for f in sorted((root / part).iterdir())[chips]
    ]


PARTS = ("optical", "sar", "mask")
ONE_GROUP = "chip,group\n" + "".join(f"c{number:02d},g\n" for number in range(12))


def one_pixel(root: Path) -> None:
    "Leave of every file its first pixel; all are mines."
    for part in PARTS:
        every(
            part, lambda v, part=part: v[:, :1, :1] * 0 + 1 if part == "mask" else v[:, :1, :1]
        )(root)


def less_radar(root: Path) -> None:
    "Take a third of the radar files away."
    for file in sorted((root / "sar").iterdir())[::3]:
        file.unlink()


TRAPS = {  # what: (how, words of the sentence; "" where the work must be done)
    "one chip without radar": (every("sar", lambda v: v * np.nan, slice(1)), "nothing valid"),
    "undeclared nodata in radar": (every("sar", lambda v: v * 0 - 9999, slice(1)), "200 dB"),
    "radar beyond float32": (every("sar", lambda v: v * 1e300, slice(1)), "nothing valid"),
    "no mine anywhere": (every("mask", lambda v: v * 0), "no mine"),
    "mines in one group": (every("mask", lambda v: v * 0, slice(1, None)), "no mine"),
    "nothing but mines": (every("mask", lambda v: v * 0 + 1), ""),
    "all ignored": (every("mask", lambda v: v * 0 + 255), "no mine"),
    "one value a band": (every("optical", lambda v: v * 0 + 700), ""),
    "chips of one pixel": (one_pixel, ""),
    "radar for two chips in three": (less_radar, ""),
    "one group": (lambda root: (root / "chips.csv").write_text(ONE_GROUP), "units"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_data_with_a_trap_is_prepared_or_told(home: Path, tmp_path: Path, trap: str):
    manifest = write_dataset(tmp_path, "trap")
    change, words = TRAPS[trap]
    change(tmp_path / "trap")

    def work() -> None:
        store = prepare(read_manifest(manifest), progress=False)
        splits = make_splits(store.chips, store.manifest.splits)
        train = np.flatnonzero(splits["0"] == "train")
        for role, known in measure_statistics(store, train).items():
            assert np.isfinite([known["mean"], known["std"]]).all(), role
            assert min(known["std"]) > 0

    if words:
        with pytest.raises(UserError, match=words):
            work()
        assert not list((home / "data/stores").glob(".asm-*"))
    else:
        work()


TAUGHT = ("nothing but mines", "one value a band", "chips of one pixel")


@pytest.mark.parametrize("trap", [*TAUGHT, "radar for two chips in three", "half the chips"])
def test_data_with_a_trap_is_learnt_and_scored(home: Path, tmp_path: Path, trap: str):
    manifest = write_dataset(tmp_path, "trap")
    half = every("sar", lambda v: np.where(np.arange(32) < 16, np.nan, v))
    (half if trap == "half the chips" else TRAPS[trap][0])(tmp_path / "trap")
    made = make_settings(
        dataset=str(manifest), modality="late_fusion", encoder="tu-test_resnet",
        decoder_channels="16,16,8,8,8", steps=4, rounds=1, batch_size=2, chip_px=32,
        sensor_dropout=0.9, seed=3,
    )  # fmt: skip
    run = open_run(made, tmp_path / "run")
    fitted = fit(run)
    metrics = finish_run(run, fitted, score_run(run, fitted))
    weights = load_artefact(tmp_path / "run" / "model")[0].state_dict()
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert metrics["test"]["pixels"] > 0 and math.isfinite(metrics["test"]["f1"])


# --- the command line ------------------------------------------------------------------------

LINES = [
    ("chek {}", 2, ""),
    ("check {} --jsn", 2, ""),
    ("check", 2, ""),
    ("check {}/..", 1, "no manifest"),
    ("check {} --root /nowhere", 1, "/nowhere does not exist"),
    ("check {} --root {}", 1, "does not exist"),
    ("run {} --modality optical --fold ²", 1, "fold"),
    ("run {} --modality optical --fold 0x1", 1, "fold"),
    ("run {} --modality optical --seed -1", 1, "seed"),
    ("run {} --modality optical --name ..", 1, "name"),
    ("run {} --modality optical --name a/b", 1, "name"),
    ("run {} --modality optical --preset fast", 1, "preset"),
    ("run {} --modality optical -p augmentation 1e9", 1, "augmentation"),
    ("run {} --modality optical -p learning_rate nan", 1, "learning_rate"),
    ("run {} --modality optical -p decoder_channels 1,1,1,1,1000000000", 1, "decoder_channels"),
    ("run {} --modality optical -p chip_px 33 -p batch_size 1e3", 1, "batch_size"),
    ("run {} --modality optical -p loss hinge", 1, "hinge"),
    ("run {} --modality optical -p encoder x", 1, "no encoder 'x'"),
    ("run {} --modality optical -p steps", 1, "give a name and a value"),
    ("compare {} --folds 1000000", 2, "--folds"),
    ("compare {} --folds 1", 1, "1"),
    ("compare {} --modalities ,", 1, "no modality given"),
    ("compare {} -p modality sar", 1, "modality"),
    ("evaluate {} {}", 1, "not a finished run"),
    ("runs ..", 1, "no runs called .."),
    ("report nothing", 1, "nothing"),
]  # fmt: skip


def everything(*folders: Path) -> set[Path]:
    "List all files in folders, but for locks and caches."
    found = (path for folder in folders for path in folder.rglob("*"))
    return {p for p in found if not p.name.startswith(".") and "stores" not in p.parts}


@pytest.mark.parametrize(("line", "status", "words"), LINES)
def test_wrong_words_end_in_a_sentence(
    cli: CommandLine, dataset: Path, line: str, status: int, words: str
):
    cli.quickly("check", dataset, status=0)  # so that the cache of hashes is there
    before = everything(cli.data, cli.runs)
    text = cli.quickly(*line.replace("{}", str(dataset)).split(), status=status)
    assert words in text and "Traceback" not in text, text
    assert everything(cli.data, cli.runs) == before, "nothing is begun"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ASM_ROOT", "/nowhere"), ("ASM_DATA", "{}"), ("ASM_DATA", "/proc/x"), ("ASM_RUNS", "{}")],
)
def test_folders_that_cannot_be_are_named(
    cli: CommandLine, dataset: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
):
    value = value.format(dataset)  # a file
    monkeypatch.setitem(cli.env, variable, value)
    small = ("-p", "steps", "1", "-p", "chip_px", "32")
    text = cli.quickly("run", dataset, "--modality", "sar", *small, status=1)
    assert value in text and "Traceback" not in text, text


def test_check_needs_no_training_library(cli: CommandLine, dataset: Path):
    code = (
        "import sys; from asm_mapping.cli import app\n"
        f"try: app(['check', {str(dataset)!r}])\n"
        "finally: assert 'lightning' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=cli.env, cwd=cli.root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
