"""Clean and export the notebooks; fail if that changes a file: notebooks and package differ."""

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def hashes() -> dict[str, str]:
    "Hash every notebook and module, so that files git does not know yet count too."
    files = [*ROOT.glob("nbs/*.ipynb"), *ROOT.glob("asm_mapping/**/*.py")]
    return {str(p.relative_to(ROOT)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def main() -> int:
    "Name each file that nbdev changed, made or removed."
    before = hashes()
    for command in ("nbdev_clean", "nbdev_export"):
        subprocess.run([command], cwd=ROOT, check=True)
    after = hashes()
    changed = sorted(n for n in before | after if before.get(n) != after.get(n))
    for name in changed:
        print(f"{name}: out of step; nbdev_clean and nbdev_export have just changed it")
    if changed:
        print("Look at the changes, commit them and run the checks again.")
    else:
        print(f"{len(after)} notebooks and modules are in step")
    return bool(changed)


sys.exit(main())
