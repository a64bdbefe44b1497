"""A map's project in a real QGIS, where there is one."""

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import PIXEL_M, CommandLine, write_raster

BARE = {"PATH": os.defpath, "QT_QPA_PLATFORM": "offscreen"}  # nothing of this environment
LOOK = Path(__file__).with_name("qgis_look.py")


@pytest.fixture(scope="session")
def qgis_python() -> str:
    "Find a Python that has QGIS: Debian's is the system's."
    for name in (os.environ.get("ASM_QGIS_PYTHON", "/usr/bin/python3"), "python3"):
        command = [shutil.which(name) or name, "-c", "import qgis.core"]
        with contextlib.suppress(OSError):
            if not subprocess.run(command, capture_output=True, env=BARE).returncode:
                return command[0]
    pytest.skip("no Python here has QGIS (Debian: apt install python3-qgis)")


@pytest.fixture(scope="session")
def mapped(cli: CommandLine, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A map with its sites, in a folder that was moved since."
    generator = np.random.default_rng(5)
    optical = generator.normal(2000, 100, (4, 200, 260))
    optical[:, 60:100, 80:120] += 1500
    folder = tmp_path_factory.mktemp("qgis")
    scene = folder / "optical.tif"
    write_raster(scene, optical.clip(1, 60_000).astype(np.uint16), PIXEL_M, 700_000)
    out = folder / "made/map.tif"
    words = ("--px", 128, "--engine", "eager", "--threads", 1, "--no-page")
    cli("predict", finished, "--optical", scene, "--out", out, *words)
    told = cli("polygons", out, "--out", out.with_name("sites.gpkg"), "--threshold", 0.3).text
    assert "map.qgs shows them in QGIS" in told
    return Path(shutil.move(out.parent, folder / "moved")) / "map.tif"


def test_qgis_opens_the_project(mapped: Path, qgis_python: str, tmp_path: Path):
    files = (mapped.with_suffix(".qgs"), mapped.with_name("sites.gpkg"), tmp_path / "q.png")
    done = subprocess.run(
        [qgis_python, LOOK, *files], capture_output=True, text=True, timeout=120,
        env=BARE | {"HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    layers = {layer["name"]: layer for layer in told["layers"]}
    assert told["read"] and told["crs"] == "EPSG:32735"
    assert list(layers) == ["sites", "class", "probability", "sensors"]
    assert all(layer["valid"] and layer["crs"] == "EPSG:32735" for layer in layers.values())
    assert [name for name in layers if layers[name]["shown"]] == ["sites", "probability"]
    threshold = json.loads(mapped.with_name("map_summary.json").read_text())["threshold"]
    first_seen = next(value for value, alpha in layers["probability"]["ramp"] if alpha)
    assert first_seen == pytest.approx(threshold, abs=1e-5)
    assert layers["class"]["ramp"] == [[0, 0], [1, 255], [255, 0]]
    assert layers["sites"]["label"] == "id" and layers["sites"]["sites"] > 0
    assert told["alone"] == [True, 2]  # the GeoPackage brings its style along
    picture = plt.imread(tmp_path / "q.png")[..., :3]
    assert (picture.min(axis=2) < 0.9).mean() > 0.001  # something is drawn on the white
