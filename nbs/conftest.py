"""Let pytest collect each numbered notebook as one test, each in a process of its own."""

import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 600  # seconds for one notebook
SCRIPTS = sysconfig.get_path("scripts")  # works without an activated environment


def pytest_addoption(parser):
    parser.addoption("--flags", default="", help="slow, gpu or online cells to run as well")


def pytest_configure(config):
    "Keep notebooks away from a person's data; the workers of pytest-xdist share one folder."
    if hasattr(config, "workerinput"):
        return
    folder = tempfile.TemporaryDirectory(prefix="asm-notebooks-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.environ |= {"ASM_DATA": f"{folder.name}/data", "ASM_RUNS": f"{folder.name}/runs"}


def pytest_collect_file(parent, file_path):
    if file_path.suffix == ".ipynb" and file_path.name[0].isdigit():
        return Notebook.from_parent(parent, path=file_path)


def pytest_collection_modifyitems(items):
    "Begin with the last: later notebooks take longer, and short ones fill up the end."
    items.reverse()


class NotebookError(Exception):
    """A cell of the notebook raised, or the notebook took too long."""


def run_notebook(path: Path, flags: str) -> None:
    "Run a notebook's cells; what goes wrong is a NotebookError with what was printed."
    command = [sys.executable, f"{SCRIPTS}/nbdev_test", "--path", str(path)]
    command += ["--n_workers", "0", "--flags", flags]
    threads = os.environ.get("OMP_NUM_THREADS", "1")  # notebooks run side by side
    env = os.environ | {
        "ASM_ROOT": str(ROOT),
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": threads,
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
    }
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        told, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise NotebookError(f"{path.name} took more than {TIMEOUT} s") from None
    finally:
        if process.poll() is None:  # its kernels and workers end with it
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode or "Success." not in told:
        raise NotebookError(told)


class Notebook(pytest.File):
    def collect(self):
        yield NotebookTest.from_parent(self, name=self.path.stem)


class NotebookTest(pytest.Item):
    def runtest(self):
        run_notebook(self.path, self.config.getoption("--flags"))

    def repr_failure(self, excinfo, style=None):
        if isinstance(excinfo.value, NotebookError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self):
        return self.path, 0, self.path.stem
