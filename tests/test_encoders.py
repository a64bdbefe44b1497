"""Pretrained encoders as a person meets them: files, and weights that cannot be had."""

import json
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from helpers import SMALL, CommandLine
from safetensors.torch import save_file


def test_a_file_starts_one_sensor_and_the_card_says_so(
    cli: CommandLine, dataset: Path, tmp_path: Path
):
    torch.manual_seed(3)
    stored = smp.encoders.get_encoder("resnet18", 3, 5, None).state_dict()
    file = tmp_path / "own.safetensors"
    save_file({f"net.{name}": tensor for name, tensor in stored.items()}, file)
    words = ("run", dataset, "--modality", "late_fusion", "--name", "started", *SMALL)
    words += ("-p", "encoder", "resnet18")
    given = ("-p", "weights", f"optical={file},sar=none")
    told = cli.quickly(*words, *given, status=1)
    assert "tensors missing" in told and not (cli.runs / "started").exists()
    (tmp_path / "own.toml").write_text('prefix = "net."\n')
    cli(*words, *given)
    card = json.loads((cli.runs / "started/late_fusion/fold-0/model/card.json").read_text())
    loaded = card["training"]["loaded"]
    assert loaded["tensors"] == 120 and len(loaded["encoders"]) == 1
    assert loaded["encoders"][0]["namesakes"] == ["blue", "green", "red"]
    save_file({f"net.{name}": tensor + 1 for name, tensor in stored.items()}, file)
    assert f"{file} has changed since" in cli.quickly(*words, *given, status=1)


def test_weights_that_cannot_be_had_stop_a_comparison(cli: CommandLine, dataset: Path):
    told = cli.quickly("compare", dataset, "-p", "weights", "ssl4eo", "--name", "eo", status=1)
    assert "efficientnet_lite0 has no weights 'sentinel1_grd_moco'" in told
    assert not (cli.runs / "eo").exists(), "nothing begins that cannot end"
