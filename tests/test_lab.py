"""What `make lab` and environment.yml install is enough for every notebook."""

import ast
import json
import re
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import packages_distributions, requires

from helpers import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OWN = {"asm_mapping", "helpers", "__main__"}


def declared(extras: list[str]) -> list[str]:
    "Read the requirements of the package with extras."
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    names = ["requirements", *(f"{extra}_requirements" for extra in extras)]
    return [word for name in names for word in config["DEFAULT"][name].split()]


def closure(lines: list[str]) -> set[str]:  # canonical names of distributions
    "Follow requirements to all that pip brings with them."
    found: set[str] = set()
    waiting = [(Requirement(line), "") for line in lines]
    while waiting:
        one, extra = waiting.pop()
        if one.marker and not one.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(one.name)
        for wanted in {"", *one.extras}:
            if f"{name}[{wanted}]" not in found:
                found |= {name, f"{name}[{wanted}]"}
                waiting += [(Requirement(line), wanted) for line in requires(name) or ()]
    return found


def imported() -> Iterator[tuple[str, str]]:  # notebook, package
    "Name every package that any cell of any notebook imports."
    for path in sorted((ROOT / "nbs").glob("[0-9]*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] != "code":
                continue
            for node in ast.walk(ast.parse("".join(cell["source"]))):
                if isinstance(node, ast.Import):
                    yield from ((path.name, one.name.partition(".")[0]) for one in node.names)
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    yield path.name, str(node.module).partition(".")[0]


def extras_of(file: str, pattern: str) -> list[str]:
    "Find which extras a file installs."
    found = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"))
    assert found, f"{file} no longer says {pattern}"
    return found[1].split(",")


LAB = extras_of("Makefile", r"installed-lab: EXTRAS := \[(.*)\]")


def test_every_notebook_finds_its_packages_in_the_lab():
    there, owners = closure(declared(LAB)), packages_distributions()
    missing = {
        (book, package)
        for book, package in imported()
        if package not in OWN | sys.stdlib_module_names
        and there.isdisjoint(map(canonicalize_name, owners.get(package, ["not installed"])))
    }
    assert not missing, f"make lab does not install what notebooks import: {sorted(missing)}"


def test_the_checks_run_on_all_that_the_lab_has():
    checked = extras_of("Makefile", r"installed-dev: EXTRAS := \[(.*)\]")
    assert set(LAB) <= set(checked)
    assert set(LAB) == set(extras_of("environment.yml", r"-e \.\[(.*)\]"))


def test_every_extra_is_installed_somewhere():
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    named = {
        key[: -len("_requirements")] for key in config["DEFAULT"] if "_requirements" in key
    }
    listed = extras_of("setup.py", r"EXTRAS = \((.*)\)")
    assert named == {word.strip(' "') for word in listed}
    assert named == set(extras_of("Makefile", r"installed-dev: EXTRAS := \[(.*)\]"))


def test_constraints_pin_all_of_it():
    pinned = {
        canonicalize_name(line.partition("==")[0])
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line and not line.startswith("#")
    }
    wanted = {name for name in closure(declared([*LAB, "dev"])) if "[" not in name}
    wanted -= pinned | {"setuptools", "wheel"}  # a new environment has its own
    assert not wanted, f"constraints.txt does not pin {sorted(wanted)}"
