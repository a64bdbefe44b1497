"""House rules that nbdev and ruff do not check; prints each break and fails if there is one."""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONGEST_CELL, LONGEST_CLASS, LONGEST_LINE = 45, 60, 96  # lines, lines, characters
LEAST_PROSE, LEAST_CHECKS = 60, 3  # words, assertions; in notebooks that export a module
CHECKS = ("test_eq(", "test_close(", "test_fail(", "assert ")
TWICE = {"predict", "quantise"}  # commands that are called as the functions that they call

FORBIDDEN = {
    r"^#\|\s*eval:\s*false": "is never run (#| eval: false)",
    r"^#\|\s+-\s": "has a Quarto list over several lines, which breaks the export",
    r"^[%!]": "has a magic or shell line",
    r"\bsys\.path\b": "changes sys.path",
    r"^(nbdev_export|nbdev\.nbdev_export)\(": "exports from inside the notebook",
    r"^from \S+ import \*": "has a star import",
}
OWN_IMPORT = re.compile(r"^\s*(?:from|import) asm_mapping\.([\w.]+)", re.MULTILINE)
ONE_CLASS = re.compile(r"#\| export\n(@\w+.*\n)?class (?!(.*\n)*(def|class) )")
EXPORTS = re.compile(r"^#\|\s*default_exp\s+([\w.]+)", re.MULTILINE)
BENCH = "bench."  # measures the library, and is no part of it
TITLE = re.compile(r"# \S.*\n+> \S")
FRONT_MATTER = re.compile(r"---\ntitle: .+\nsubtitle: ")
EXPORTED = re.compile(r"^#\|\s*exporti?\s*$", re.MULTILINE)
FIGURE = re.compile(r"^(?:\w+ = )?(?:\w+\.)?(?:\w+_figure|\w+_table|plt\.\w+|sns\.\w+)\(", re.M)
NAMED = re.compile(r"`([a-z_]+)\.([A-Za-z]\w+)`")  # module.NAME, or a file
SUFFIXES = {"py", "md", "ini", "txt", "toml", "yml", "ipynb", "csv", "json"}
LINK = re.compile(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)")  # to a file, not to an address
LABEL = re.compile(r"^#\| label: ((fig|tbl)-[\w-]+)$", re.MULTILINE)


class Book:
    "A notebook's number, its code cells and its prose."

    def __init__(self, path: Path):
        self.name, self.number = path.name, path.name[:2]
        self.cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        self.code = [cell for cell in self.cells if cell["cell_type"] == "code"]
        self.sources = ["".join(cell["source"]) for cell in self.code]
        self.prose = [
            "".join(cell["source"]) for cell in self.cells if cell["cell_type"] == "markdown"
        ]
        self.modules = [found for source in self.sources for found in EXPORTS.findall(source)]
        self.is_template = "60" <= self.number < "70"
        self.may_measure = self.is_template or any(m.startswith(BENCH) for m in self.modules)


def only_imports(source: str) -> bool:
    "Say whether a cell holds nothing but imports, which ruff writes one name a line."
    lines = [line for line in source.splitlines() if line and not line.startswith("#")]
    starts = [line for line in lines if not line.startswith((" ", ")"))]
    return all(line.startswith(("import ", "from ")) for line in starts)


def cell_breaks(book: Book) -> Iterator[str]:
    "Outputs, length, and lines that do not belong in any notebook."
    if any(cell["outputs"] or cell["execution_count"] for cell in book.code):
        yield "holds outputs: jupyter nbconvert --clear-output --inplace"
    for number, source in enumerate(book.sources):
        lines = source.splitlines()
        longest = LONGEST_CLASS if ONE_CLASS.match(source) else LONGEST_CELL
        if len(lines) > longest and not only_imports(source):
            yield f"code cell {number} has {len(lines)} lines, {longest} at most"
        if any(len(line) > LONGEST_LINE for line in lines):
            yield f"code cell {number} has a line over {LONGEST_LINE} characters"
        for pattern, told in FORBIDDEN.items():
            if re.search(pattern, source, re.MULTILINE):
                yield f"code cell {number} {told}"


def story_breaks(book: Book) -> Iterator[str]:
    "A title with its sentence, and enough words and checks to follow the code."
    first = "".join(book.cells[0]["source"])
    if not TITLE.match(first) and not (book.is_template and FRONT_MATTER.match(first)):
        yield "does not begin with '# Title' and '> one sentence'"
    words = sum(len(text.split()) for text in book.prose)
    checks = sum(source.count(word) for source in book.sources for word in CHECKS)
    if not book.is_template and (words < LEAST_PROSE or checks < LEAST_CHECKS):
        yield f"explains or tests little: {words} words of prose, {checks} checks"


def lost_links(text: str, folder: Path) -> Iterator[str]:
    "Links to files that are not there."
    for target in LINK.findall(text):
        if not (folder / target).exists():
            yield f"links to {target}, which is not there"


def link_breaks(book: Book) -> Iterator[str]:
    "Links between notebooks lead somewhere: what comes next is one of them."
    yield from lost_links("\n".join(book.prose), ROOT / "nbs")


def module_breaks(book: Book) -> Iterator[str]:
    "A module notebook exports the module it is named after; a template exports none."
    wanted = [] if book.is_template else [book.name[3:].removesuffix(".ipynb")]
    if [module.removeprefix(BENCH) for module in book.modules] != wanted:
        yield f"has default_exp {book.modules}, {wanted} was expected"


def import_breaks(book: Book, owners: dict[str, str]) -> Iterator[str]:
    "Imports point to lower numbers; a test cell may also import its own module."
    for source in book.sources:
        for module in OWN_IMPORT.findall(source):
            owner = owners.get(module)
            if owner is None:
                yield f"imports asm_mapping.{module}, which no notebook exports"
            elif book.is_template:
                continue  # it exports nothing, so nothing can go in a circle
            elif owner > book.number or (owner == book.number and EXPORTED.search(source)):
                yield f"imports asm_mapping.{module}, which notebook {owner} exports"
            elif module.startswith(BENCH) and not book.may_measure:
                yield f"imports asm_mapping.{module}, which only templates may"


def template_breaks(book: Book) -> Iterator[str]:
    "One parameters cell of literals; every figure and table labelled and captioned."
    tagged = [
        source
        for cell, source in zip(book.code, book.sources, strict=True)
        if "parameters" in cell["metadata"].get("tags", [])
    ]
    if len(tagged) != 1:
        yield f"has {len(tagged)} cells tagged parameters, one was expected"
    for statement in ast.parse("\n".join(tagged)).body:
        try:
            ast.literal_eval(statement.value)
        except (AttributeError, ValueError):
            yield f"parameters hold more than literals: {ast.unparse(statement)}"
    labels = [label for source in book.sources for label, _ in LABEL.findall(source)]
    for label in {label for label in labels if labels.count(label) > 1}:
        yield f"uses the label {label} twice"
    for number, source in enumerate(book.sources):
        label = LABEL.search(source)
        if FIGURE.search(source) and not label:
            yield f"code cell {number} shows a figure or table without a label"
        if label and f"#| {label[2]}-cap:" not in source:
            yield f"code cell {number} has the label {label[1]} and no caption"


def package_breaks(books: list[Book]) -> Iterator[str]:
    "Each module has exactly one notebook, and the README's picture shows them all."
    made = [module for book in books for module in book.modules]
    for module in sorted({module for module in made if made.count(module) > 1}):
        yield f"{module}.py: exported by two notebooks"
    named = set(
        re.findall(r"\b\d\d_[a-z]\w+", (ROOT / "README.md").read_text(encoding="utf-8"))
    )
    for name in sorted(named ^ {book.name.removesuffix(".ipynb") for book in books}):
        yield f"README.md: its picture of the notebooks and nbs/ differ in {name}"
    for module in sorted({*names_of_modules()} - {*made}):
        yield f"asm_mapping.{module}: no notebook exports it; delete it"


def names_of_modules() -> dict[str, list[str]]:  # module: what it exports
    "Read `__all__` of every module."
    found, package = {}, ROOT / "asm_mapping"
    for path in sorted(package.rglob("[!_]*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        named = [node for node in body if isinstance(node, ast.Assign)]
        lists = [n.value for n in named if ast.unparse(n.targets[0]) == "__all__"]
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        found[module] = [name for value in lists for name in ast.literal_eval(value)]
    return found


def name_breaks() -> Iterator[str]:
    "A name means one thing: two modules do not export it."
    owners: dict[str, list[str]] = {}
    for module, names in names_of_modules().items():
        for name in names:
            owners.setdefault(name, []).append(module)
    for name, modules in owners.items():
        if len(modules) > 1 and name not in TWICE:
            yield f"{name}: exported by {' and '.join(modules)}; call each by what it is"


def names_in(module: Path) -> set[str]:
    "List what a module defines at its top level."
    found: set[str] = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def guide_breaks() -> Iterator[str]:
    "Pages link to what is there; what CONTRIBUTING.md calls module.NAME is in that module."
    for page in (*ROOT.glob("*.md"), *(ROOT / "nbs").glob("*.md")):
        for told in lost_links(page.read_text(encoding="utf-8"), page.parent):
            yield f"{page.relative_to(ROOT)}: {told}"
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for module, name in sorted(set(NAMED.findall(text))):
        path = ROOT / "asm_mapping" / f"{module}.py"
        if name not in SUFFIXES and not (path.is_file() and name in names_in(path)):
            yield f"CONTRIBUTING.md: names {module}.{name}, which is not there"


def main() -> int:
    "Check the notebooks and the package."
    books = [Book(path) for path in sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))]
    owners = {module: book.number for book in books for module in book.modules}
    found = []
    for book in books:
        rules = [cell_breaks(book), story_breaks(book), link_breaks(book), module_breaks(book)]
        rules += [import_breaks(book, owners)]
        rules += [template_breaks(book)] if book.is_template else []
        found += [f"{book.name}: {text}" for rule in rules for text in rule]
    found += [*package_breaks(books), *name_breaks(), *guide_breaks()]
    print("\n".join(found) or f"{len(books)} notebooks keep the house rules")
    return bool(found)


sys.exit(main())
