"""Tune damping rules for hand guiding on training motions, by a separable evolution strategy.

  python -m experiments.admittance_tuning --generations=30

Four families of rules are tuned in the same way: rules of the speed, of the intent of the hand, of
the magnitudes of force and speed, and of intent and speed. Writes tuned.json and, to metrics.json,
the cost of every generation. admittance/laws.json is such a tuned.json; its last family is
`robot.intent_rules`.
"""

import json
import pathlib

import numpy as np

from dartjax import simulation
from dartjax.cli import launch
from dartjax.simulation import DampingSearch
from experiments.admittance_tuning.settings import Settings

_TRAINING_SEED = 1000  # of the motions of the search; no other experiment uses it
_MOTIONS_PER_KIND = 3


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Run the search and write its result."""
    motions = simulation.random_hand_motions(
        np.random.default_rng(_TRAINING_SEED), _MOTIONS_PER_KIND
    )
    search = simulation.start_damping_search(
        read_genomes(pathlib.Path(settings.resume)) if settings.resume else None
    )
    rng, baselines = np.random.default_rng(ctx.seed), simulation.damping_baselines(motions)
    course = []
    with launch.progress("search", settings.generations) as step:
        for generation in range(settings.generations):
            search, costs = simulation.damping_search_step(search, motions, baselines, rng=rng)
            course.append({"generation": generation, **costs})
            step(", ".join(f"{family} {cost:.3f}" for family, cost in costs.items()))

    write_laws(ctx.out / "tuned.json", search)
    record = ctx.record(
        dataset="simulated drags, training tasks",
        dataset_kind="synthetic",
        subjects=[],
        n_vertebrae=0,
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    ctx.save_metrics(record, course[-1], course)


def read_genomes(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read the genomes of an earlier search by family."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    return {family: np.array(numbers["genome"]) for family, numbers in stored.items()}


def write_laws(path: pathlib.Path, search: DampingSearch) -> None:
    """Write the mean genome of every family and the numbers of its law."""
    found = {
        family: {
            "genome": genome.tolist(),
            **simulation.damping_law_numbers(simulation.damping_law_of(genome, family)),
        }
        for family, genome in search.mean.items()
    }
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    launch.run(main, Settings)
