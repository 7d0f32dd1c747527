"""A job that writes six small files and a run folder; with a fault, if asked. `test_kills.py` kills
it."""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

NUM_PIECES = 6
SECONDS = 0.008  # per third of a file


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fault", default="none")
    options = parser.parse_args()
    pieces = options.base / "pieces"
    if options.fault == "forgets":
        shutil.rmtree(pieces, ignore_errors=True)
    partial = options.out.with_name(".run.partial")
    if options.fault != "litters":
        shutil.rmtree(partial, ignore_errors=True)
    if options.out.exists():
        sys.exit(2)
    pieces.mkdir(exist_ok=True)
    if options.fault != "litters":
        for path in pieces.glob(".*"):
            path.unlink()
    start = len(list(pieces.iterdir()))  # what is there depends on the kills
    for number in range(NUM_PIECES):
        path = pieces / f"{number}.json"
        if path.exists():
            continue
        hidden = path if options.fault == "halves" else pieces / f".{number}.{os.getpid()}"
        content = {"number": number, "start": start if options.fault == "drifts" else 0}
        write_slowly(hidden, json.dumps(content | {"seconds": time.time()}))
        hidden.replace(path)
    partial.mkdir(exist_ok=True)
    for name in ("config.json", "metrics.json"):
        write_slowly(partial / name, json.dumps({"cases": NUM_PIECES}))
    partial.rename(options.out)


def write_slowly(path: Path, text: str) -> None:
    with path.open("w") as file:
        for part in (text[:3], text[3:6], text[6:]):
            file.write(part)
            file.flush()
            time.sleep(SECONDS)


if __name__ == "__main__":
    main()
