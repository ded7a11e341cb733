"""Fails where a file under version control is large, or names a place of one machine or one registry."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACES = re.compile(
    r"(?<![\w.~<}/-])/(?:home|Users|root|tmp|mnt|opt|srv|work|workspace|scratch|media)/[\w.-]"
    r"|--(?:extra-)?index-url|--find-links|\bsecret[-_]?key\s*="
)
MOST_BYTES = 1_000_000
BINARY = {".ckpt", ".png", ".jpg", ".ico", ".safetensors", ".onnx", ".pt2"}


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file() and path.stat().st_size > MOST_BYTES:
            found.append(f"{name}: {path.stat().st_size} bytes, allowed are {MOST_BYTES}")
            continue
        if path.suffix in BINARY or path == Path(__file__).resolve() or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if PLACES.search(line):
                found.append(f"{name}:{number}: {line.strip()[:120]}")
    print("\n".join(found) if found else "No file is large or names a place of one machine.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
