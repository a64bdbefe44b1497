"""Let pytest collect each numbered notebook as one test, each in a process of its own."""

import atexit
import multiprocessing
import os
import signal
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest
from nbdev.config import get_config
from nbdev.test import test_nb as run_cells  # pytest would collect its own name

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 600  # seconds for one notebook
SCRIPTS = sysconfig.get_path("scripts")  # works without an activated environment
SERVER = multiprocessing.get_context("forkserver")  # notebooks start where these are imported
SERVER.set_forkserver_preload(["lightning", "nbdev.test", "segmentation_models_pytorch"])


def pytest_addoption(parser):
    parser.addoption("--flags", default="", help="slow, gpu or online cells to run as well")


def pytest_configure(config):
    "Keep notebooks away from a person's data; the workers of pytest-xdist share one folder."
    if hasattr(config, "workerinput"):
        return
    folder = tempfile.TemporaryDirectory(prefix="asm-notebooks-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.environ |= {
        "ASM_DATA": f"{folder.name}/data",
        "ASM_ROOT": str(ROOT),
        "ASM_RUNS": f"{folder.name}/runs",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),  # they run side by side
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
    }


def pytest_collect_file(parent, file_path):
    if file_path.suffix == ".ipynb" and file_path.name[0].isdigit():
        return Notebook.from_parent(parent, path=file_path)


def pytest_collection_modifyitems(items):
    "Begin with the last: later notebooks take longer, and short ones fill up the end."
    items.reverse()


class NotebookError(Exception):
    """A cell of the notebook raised, or the notebook took too long."""


def run_in_process(path: Path, flags: list[str], told: str) -> None:
    "Run a notebook's cells as nbdev does, in a process group that has its own output."
    os.setsid()
    output = os.open(told, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(output, stream)
    skipped, done = get_config().tst_flags.split(), False
    try:
        done, _ = run_cells(path, skipped, flags, basepath=ROOT)
    finally:
        atexit._run_exitfuncs()  # a forked process leaves them out
    sys.exit(not done)


def run_notebook(path: Path, flags: str) -> None:
    "Run a notebook's cells; what goes wrong is a NotebookError with what was printed."
    with tempfile.NamedTemporaryFile(prefix=path.stem) as told:
        process = SERVER.Process(target=run_in_process, args=(path, flags.split(), told.name))
        process.start()
        try:
            process.join(TIMEOUT)
            if process.exitcode is None:
                raise NotebookError(f"{path.name} took more than {TIMEOUT} s")
        finally:
            if process.exitcode is None:  # its kernels and workers end with it
                os.killpg(process.pid, signal.SIGKILL)
                process.join()
        if process.exitcode:
            raise NotebookError(Path(told.name).read_text(errors="replace"))


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
