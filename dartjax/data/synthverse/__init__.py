"""SynthVerSe: synthetic spines in whole trunks, as a cohort in VerSe's layout.

Two independent families of vertebrae: `parametric`, smooth signed distances whose sizes are drawn
from published tables, and `warped`, real meshes of stated parents under smooth random warps.
"""

from dartjax.data.synthverse._spine import usual_tilts_deg as usual_tilts_deg
from dartjax.data.synthverse._subject import FAMILIES as FAMILIES
from dartjax.data.synthverse._subject import VERSION as VERSION
from dartjax.data.synthverse._subject import Options as Options
from dartjax.data.synthverse._subject import SyntheticSubject as SyntheticSubject
from dartjax.data.synthverse._subject import make_subject as make_subject
from dartjax.data.synthverse._subject import subject_id as subject_id
from dartjax.data.synthverse._warped import find_parents as find_parents
from dartjax.data.synthverse._write import has_subject as has_subject
from dartjax.data.synthverse._write import open_cohort as open_cohort
from dartjax.data.synthverse._write import real_parents as real_parents
from dartjax.data.synthverse._write import save_participants as save_participants
from dartjax.data.synthverse._write import save_subject as save_subject
from dartjax.data.synthverse._write import subject_facts as subject_facts
