"""Planning of needle paths through the pedicles: wall distances, clearance, best corridors,
grades of breaches."""

from dartjax.planning._corridor import best_corridor as best_corridor
from dartjax.planning._distance_field import DistanceField as DistanceField
from dartjax.planning._distance_field import distance_field_from_mesh as distance_field_from_mesh
from dartjax.planning._distance_field import distance_field_from_solid as distance_field_from_solid
from dartjax.planning._distance_field import signed_distance as signed_distance
from dartjax.planning._grading import PedicleGrade as PedicleGrade
from dartjax.planning._grading import breach_mm as breach_mm
from dartjax.planning._grading import pedicle_grade as pedicle_grade
from dartjax.planning._paths import Clearance as Clearance
from dartjax.planning._paths import clearance as clearance
