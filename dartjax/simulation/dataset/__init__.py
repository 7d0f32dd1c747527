"""Data sets of simulated radiographs: the plan, the scene, rendering, files."""

from dartjax.simulation.dataset._cluster import starmap_unordered as starmap_unordered
from dartjax.simulation.dataset._plan import VIEW_SETS as VIEW_SETS
from dartjax.simulation.dataset._plan import Settings as Settings
from dartjax.simulation.dataset._writer import Written as Written
from dartjax.simulation.dataset._writer import entries_of as entries_of
from dartjax.simulation.dataset._writer import scan_entries as scan_entries
from dartjax.simulation.dataset._writer import write_scan as write_scan
