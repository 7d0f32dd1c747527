"""SynthVerSe: synthetic spines in whole trunks, as a cohort in VerSe's layout.

Two independent families of vertebrae: `parametric`, smooth signed distances with sizes sampled from
published tables, and `warped`, real meshes of recorded parents under smooth random warps.
"""

from dartjax.synthverse._bones import evaluate as evaluate
from dartjax.synthverse._ct import draw_bone as draw_bone
from dartjax.synthverse._demo import demo_case as demo_case
from dartjax.synthverse._shape import Fracture as Fracture
from dartjax.synthverse._shape import parametric_shape as parametric_shape
from dartjax.synthverse._sizes import LEVELS as LEVELS
from dartjax.synthverse._sizes import draw_person as draw_person
from dartjax.synthverse._subject import FAMILIES as FAMILIES
from dartjax.synthverse._subject import VERSION as VERSION
from dartjax.synthverse._subject import Family as Family
from dartjax.synthverse._subject import Options as Options
from dartjax.synthverse._subject import SyntheticSubject as SyntheticSubject
from dartjax.synthverse._subject import make_subject as make_subject
from dartjax.synthverse._subject import subject_id as subject_id
from dartjax.synthverse._surroundings import body_around as body_around
from dartjax.synthverse._torso import synthetic_case as synthetic_case
from dartjax.synthverse._vertebra import VertebraForm as VertebraForm
from dartjax.synthverse._vertebra import vertebra as vertebra
from dartjax.synthverse._warped import find_parents as find_parents
from dartjax.synthverse._write import has_subject as has_subject
from dartjax.synthverse._write import open_cohort as open_cohort
from dartjax.synthverse._write import real_parents as real_parents
from dartjax.synthverse._write import save_participants as save_participants
from dartjax.synthverse._write import save_subject as save_subject
from dartjax.synthverse._write import subject_facts as subject_facts
