"""Compute the packaged tables of X-ray physics: attenuation by energy, and tube spectra.

    python -m experiments.build_xray_tables --out=FOLDER

Writes tables.npz and card.json to FOLDER; copy both to dartjax/assets/xray to package them. Takes
under a minute. Needs the `build` extra (pip install "dartjax[build]"). The library reads the tables
with NumPy only.
"""

import json

import numpy as np

from dartjax import data, render
from dartjax.cli import launch
from experiments.build_xray_tables import report
from experiments.build_xray_tables.settings import Settings


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Compute the tables and write them with their card."""
    tables = render.build_physics_tables(settings.anode_deg, launch.progress)
    path = ctx.out / "tables.npz"
    data.publish_arrays(path, {name: _as_stored(table) for name, table in tables.items()})
    card = report.card_of(
        path.read_bytes(), anode_deg=settings.anode_deg, commit=ctx.config["commit"]
    )
    (ctx.out / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    record = ctx.record(
        dataset="tables of X-ray physics",
        dataset_kind="synthetic",
        subjects=[],
        n_vertebrae=0,
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    rows = zip(tables["materials"], tables["mass_attenuation"], strict=True)
    ctx.save_metrics(record, {f"{name}_60kev_cm2_per_g": float(mu[50]) for name, mu in rows}, [])


def _as_stored(table: np.ndarray) -> np.ndarray:
    return table.astype(np.float32) if table.dtype == np.float64 else table


if __name__ == "__main__":
    launch.run(main, Settings)
