"""A tiny dataset made by code, and the command line away from a person's data."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import rasterio
from rasterio.transform import from_origin

ROOT = Path(__file__).resolve().parents[1]
COMMAND = Path(sysconfig.get_path("scripts"), "asm-mapping")
LONGEST_S = 600  # for any one command
SMALL = tuple("-p steps 6 -p rounds 2 -p batch_size 4 -p chip_px 32".split())
CHIP_PX, PIXEL_M, CHIPS, GROUPS = 64, 4.777, 12, 4
MANIFEST = """
name = "{name}"
root = "{root}"
target = "bright squares, made by code"
licence = "none"
source = "tests"
synthetic = true

[optical]
sensor = "planet_nicfi"
path = "optical/{{chip}}.tif"

[sar]
sensor = "sentinel1"
path = "sar/{{chip}}.tif"

[mask]
path = "mask/{{chip}}.tif"
positive = [1]
ignore = [255]

[index]
path = "chips.csv"
group = "group"

[splits]
folds = 2
"""


def write_raster(path: Path, values: np.ndarray, pixel_m: float, west: float) -> None:
    "Write (band, row, column) values as a GeoTIFF whose upper-left corner is at `west`."
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = values.shape
    profile = {"driver": "GTiff", "count": bands, "height": height, "width": width}
    profile |= {"dtype": values.dtype, "crs": "EPSG:32735"}
    profile["transform"] = from_origin(west, 9_800_000, pixel_m, pixel_m)
    with rasterio.open(path, "w", **profile) as file:
        file.write(values)


def change_raster(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    "Write a raster's changed values back to the same place."
    with rasterio.open(path) as file:
        values, transform = change(file.read()), file.transform
    write_raster(path, values, transform.a, transform.c)


def write_chip(root: Path, name: str, west: float, generator: np.random.Generator) -> None:
    "Write one chip: a square that is bright in the red band and dark in radar."
    pattern = np.kron(generator.normal(0, 1, (8, 8)), np.ones((CHIP_PX // 8, CHIP_PX // 8)))
    mask = np.zeros((CHIP_PX, CHIP_PX), np.uint8)
    row, column = generator.integers(4, CHIP_PX - 28, 2) // 2 * 2
    mask[row : row + 24, column : column + 24] = 1
    optical = generator.normal(2000, 100, (4, CHIP_PX, CHIP_PX)) + 300 * pattern + 1500.0 * mask
    sar = generator.normal(-10, 1, (2, CHIP_PX // 2, CHIP_PX // 2)) - 6.0 * mask[::2, ::2]
    sar += pattern[::2, ::2]
    write_raster(root / f"optical/{name}.tif", optical.astype(np.uint16), PIXEL_M, west)
    write_raster(root / f"sar/{name}.tif", sar.astype(np.float32), 2 * PIXEL_M, west)
    write_raster(root / f"mask/{name}.tif", mask[None], PIXEL_M, west)


def write_dataset(folder: Path, name: str, seed: int = 0) -> Path:
    "Write twelve chips in four groups, 20 km apart, and return the manifest's path."
    root = folder / name
    generator = np.random.default_rng(seed)
    rows = ["chip,group"]
    for number in range(CHIPS):
        group = number % GROUPS
        west = 300_000 + seed * 200_000 + group * 20_000 + number * 2 * CHIP_PX * PIXEL_M
        write_chip(root, f"c{number:02d}", west, generator)
        rows.append(f"c{number:02d},g{group}")
    (root / "chips.csv").write_text("\n".join(rows) + "\n")
    manifest = folder / f"{name}.toml"
    manifest.write_text(MANIFEST.format(name=name, root=root))
    return manifest


def make_root(folder: Path) -> Path:
    "Make a repository of links, so that reports are written there and not in the real one."
    folder.mkdir(parents=True)
    (folder / "reports").mkdir()
    for name in ("settings.ini", "nbs", "datasets", "asm_mapping", "_quarto.yml"):
        (folder / name).symlink_to(ROOT / name)
    return folder


Process = subprocess.Popen[str]


@dataclass(frozen=True)
class Told:
    "What a command said."

    out: str  # standard output alone
    text: str  # and errors behind it


def obey_ctrl_c() -> None:
    "Undo ignored signals: SIGINT in a shell's background jobs, SIGHUP below nohup."
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class CommandLine:
    "Runs asm-mapping with its own data, runs and reports folders."

    def __init__(self, folder: Path):
        self.root = make_root(folder / "root")
        self.data, self.runs = folder / "data", folder / "runs"
        self.env = os.environ | {
            "ASM_ROOT": str(self.root),
            "ASM_DATA": str(self.data),
            "ASM_RUNS": str(self.runs),
            "PATH": path_without("quarto"),
        }
        self.started = 0

    @property
    def mark(self) -> bytes:
        "What marks the command that was started last and all that it started."
        return f"ASM_TEST_MARK={self.root}-{self.started}-".encode()

    def start(self, *words: object, before: Callable[[], None] = obey_ctrl_c) -> Process:
        "Start a command in a session of its own; a variable marks what it starts."
        self.started += 1
        return subprocess.Popen(
            [COMMAND, *map(str, words)],
            env=self.env | {"ASM_TEST_MARK": f"{self.root}-{self.started}-"},
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=before,
        )

    def __call__(self, *words: object, status: int = 0, **options: object) -> Told:
        "Run a command to its end; another exit status than `status` fails the test."
        return finish(self.start(*words, **options), status)

    def quickly(self, *words: object, status: int) -> str:
        "Run a command in this process, which saves its imports; return all it said."
        from asm_mapping.cli import run_cli

        told = io.StringIO()
        with (
            mock.patch.dict(os.environ, self.env),
            mock.patch.object(sys, "argv", ["asm-mapping", *map(str, words)]),
            contextlib.chdir(self.root),
            contextlib.redirect_stdout(told),
            contextlib.redirect_stderr(told),
        ):
            try:
                run_cli()
                ended = 0
            except SystemExit as error:
                ended = error.code or 0
        assert ended == status, f"exit status {ended}:\n{told.getvalue()}"
        return told.getvalue()


def path_without(program: str) -> str:
    "Return PATH without the folders that hold a program."
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(f for f in folders if not Path(f, program).exists())


def finish(process: Process, status: int) -> Told:
    "Wait for a process, check its exit status and that errors are no tracebacks."
    try:
        out, errors = process.communicate(timeout=LONGEST_S)
    finally:
        process.kill()
    everything = f"{out}\n{errors}"
    assert process.returncode == status, f"exit status {process.returncode}:\n{everything}"
    assert "Traceback" not in everything, everything
    return Told(out, everything)


def wait_for(happened: Callable[[], bool], process: Process) -> None:
    "Wait until something has happened while a process works."
    end = time.monotonic() + LONGEST_S
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def processes_of(mark: bytes) -> dict[int, str]:  # number: command line
    "Find the processes that a command started, and itself."
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is another's
            if mark in (folder / "environ").read_bytes():
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(folder.name)] = words.decode(errors="replace")
    return found  # the dead have no environment


def wait_until_gone(mark: bytes, patience_s: float = 5.0) -> None:
    "Wait some seconds at most until nothing is left of a command."
    end = time.monotonic() + patience_s
    while left := processes_of(mark):
        assert time.monotonic() < end, f"left running: {left}"
        time.sleep(0.05)
