"""`dartjax weights`: list the packaged shape models, networks and tables."""

import json
from pathlib import Path

from dartjax.cli._commands import Weights
from dartjax.cli._tables import print_facts
from dartjax.cli.facts import asset_facts


def main(settings: Weights) -> None:
    """Print every packaged asset and the total size."""
    found = asset_facts()
    total = round(sum(each.facts["size_mb"] for each in found), 2)
    if settings.json:
        assets = [{"path": each.path, **each.facts} for each in found]
        print(json.dumps({"assets": assets, "total_mb": total}, indent=1))
        return
    print_facts(found)
    parent = Path(found[-1].path).parent
    print(f"\n{len(found)} assets, {total:g} MB, in {parent}")
