"""The job scripts that the page on machines shows are whole shell scripts."""

import re
import shutil
import subprocess

import pytest
from helpers import ROOT

PAGE = ROOT / "nbs/machines.md"
SCRIPTS = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_job_script_is_sound(script: str):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    if shutil.which("shellcheck"):
        told = subprocess.run(
            ["shellcheck", "--exclude=SC1091", "-"],
            input=script,
            text=True,
            capture_output=True,
        )
        assert told.returncode == 0, told.stdout
    assert "#SBATCH --time" in script and "set -euo pipefail" in script


def test_there_are_scripts_for_training_and_tuning():
    assert ["srun" in script for script in SCRIPTS] == [True, False]
