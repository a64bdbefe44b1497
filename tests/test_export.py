"""A run as one ONNX file, against PyTorch on the chips of its dataset."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import rasterio
import torch
from helpers import CHIP_PX, CommandLine

from asm_mapping.artefact import load_artefact
from asm_mapping.calibration import through
from asm_mapping.dataset import to_channels
from asm_mapping.sensors import Sensor
from asm_mapping.sheet import read_chip


def write_holes(chip: Path, place: Path) -> Path:
    "Write a chip with a dark band, which is data, and with a hole, which is none."
    with rasterio.open(chip) as file:
        values, profile = file.read(), file.profile
    values[0, :20], values[:, 40:50] = 0, 0
    with rasterio.open(place, "w", **profile) as file:
        file.write(values)
    return place


def farthest(model: Path, graph: Path, chips: list[Path]) -> float:
    "Find the largest difference of probability, over optical chips."
    network, card = load_artefact(model)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    part, gaps = card.roles["optical"], []
    sensor = Sensor(**part["sensor"])
    for path in chips:
        _, pixels = read_chip(path, sensor)
        values = pixels.values.astype(np.float32)
        valid = torch.from_numpy(pixels.valid[None] > 0)
        ways = sensor, part["derived"], card.statistics["optical"]
        channels = to_channels([(values, valid[0].numpy())], valid, *ways)
        with torch.inference_mode():
            logits = network({"optical": channels, "optical_valid": valid})[0, 0].numpy()
        expected = 1 / (1 + np.exp(-through(card.calibration, logits))) * valid[0].numpy()
        (found,) = session.run(None, {"optical": values[None]})
        gaps.append(float(np.abs(found[0, 0] - expected).max()))
    return max(gaps)


def test_an_exported_run_says_what_the_run_says(
    cli: CommandLine, finished: Path, dataset: Path, tmp_path: Path
):
    out = tmp_path / "model.onnx"
    told = cli.quickly("export", finished, "--out", out, "--px", CHIP_PX, status=0)
    assert "optical in, the probability of a mine out" in told
    chips = sorted((dataset.parent / "tiny/optical").glob("*.tif"))[:4]
    chips.append(write_holes(chips[0], tmp_path / "holes.tif"))
    assert farthest(finished / "model", out, chips) < 1e-4
    item = json.loads(out.with_suffix(".json").read_text())
    assert item["properties"]["mlm:input"][0]["bands"] == ["blue", "green", "red", "nir"]
    again = cli.quickly("export", finished, "--out", out, "--px", CHIP_PX, status=1)
    assert "--overwrite replaces it" in again
