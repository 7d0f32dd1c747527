"""Describe packaged assets, and other folders with a `card.json`, without JAX."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dartjax._documents import read_json
from dartjax._errors import DataError
from dartjax.cli.facts._facts import FileFacts

ASSETS = Path(__file__).resolve().parents[2] / "assets"
CARD = "card.json"
_OWN_LICENCE = "Apache-2.0 (dartjax)"
# Descriptions that the cards lack.
_WHAT = {
    "isolation": "network: isolates one vertebra in an X-ray",
    "similarity": "network: how well a rendered vertebra matches an X-ray",
}
_KINDS = {  # by the file next to the card
    "models.npz": "shape models",
    "weights.npz": "network",
    "model.npz": "failure model",
    "tables.npz": "tables",
}
_FILES = {  # assets of one file without a card
    "ssm/template.npz": "template surface for the registration of shapes",
    "morphometry.json": "published lengths of vertebrae by level",
}


def asset_facts(root: Path = ASSETS) -> list[FileFacts]:
    """Describe every packaged asset. DataError if there is none."""
    folders = sorted(card.parent for card in root.rglob(CARD))
    if not folders:
        raise DataError(f"no assets in {root}: install dartjax again")
    found = [card_facts(folder, read_json(folder / CARD)) for folder in folders]
    files = [root / name for name in _FILES if (root / name).is_file()]
    return [*found, *(_file_facts(file, root) for file in files)]


def card_facts(folder: Path, card: Mapping[str, Any]) -> FileFacts:
    """Describe a folder of weights, shape models or tables from its card."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file()]
    sources = card.get("sources") or {}
    name = str(card.get("name", folder.name))
    facts = {
        "name": name,
        "what": card.get("kind") or _WHAT.get(name) or f"network, preset {card.get('preset')}",
        "licence": _licence(sources),
        "built_from": _sources(sources),
        "subjects": card.get("subjects_included"),
        "never_seen": card.get("never_seen") or card.get("subjects_excluded") or None,
        "levels": list(card["levels"]) if card.get("levels") else None,
        "quality": _plain_numbers(card.get("quality") or {}) or None,
        "files": [file.name for file in files],
        "size_mb": _megabytes(sum(file.stat().st_size for file in files)),
    }
    facts = {key: value for key, value in facts.items() if value is not None}
    missing = [] if any(f.suffix == ".npz" for f in files) else ["no .npz file next to the card"]
    kind = next((_KINDS[f.name] for f in files if f.name in _KINDS), "folder with a card")
    return FileFacts(str(folder), kind, facts, missing)


def _file_facts(file: Path, root: Path) -> FileFacts:
    document = read_json(file) if file.suffix == ".json" else {}
    sources = document.get("sources") or {}
    facts = {
        "name": file.stem,
        "what": _FILES[file.relative_to(root).as_posix()],
        "licence": _licence(sources),
        "built_from": _sources(sources) or None,
        "size_mb": _megabytes(file.stat().st_size),
    }
    return FileFacts(str(file), "table", {k: v for k, v in facts.items() if v is not None})


def _licence(sources: Mapping[str, Any]) -> str:
    given = [str(source["licence"]) for source in sources.values() if source.get("licence")]
    return ", ".join(dict.fromkeys(given)) if given else _OWN_LICENCE


def _sources(sources: Mapping[str, Any]) -> list[str] | None:
    named = {name: source.get("what") or source.get("citation") for name, source in sources.items()}
    return [f"{name}: {what}" for name, what in named.items()] or None


def _plain_numbers(quality: Mapping[str, Any]) -> dict[str, int | float]:
    """Return the numbers at the top level of a card's quality; others are nested by region."""
    return {k: round(v, 4) for k, v in quality.items() if isinstance(v, int | float)}


def _megabytes(size: int) -> float:
    return round(size / 1e6, 3)
