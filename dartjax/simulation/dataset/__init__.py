"""Data sets of simulated radiographs: plan, ground truth, rendering and files."""

from dartjax.simulation.dataset._bodies import VertebraPoints as VertebraPoints
from dartjax.simulation.dataset._bodies import project_bodies as project_bodies
from dartjax.simulation.dataset._bodies import vertebra_points as vertebra_points
from dartjax.simulation.dataset._plan import VIEW_SETS as VIEW_SETS
from dartjax.simulation.dataset._plan import Settings as Settings
from dartjax.simulation.dataset._shard import describe_scans as describe_scans
from dartjax.simulation.dataset._shard import new_manifest as new_manifest
from dartjax.simulation.dataset._shard import write_shard as write_shard
from dartjax.simulation.dataset._writer import WrittenScan as WrittenScan
from dartjax.simulation.dataset._writer import radiograph_files as radiograph_files
