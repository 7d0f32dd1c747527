"""Host-side figures and reports: radiographs with contours, and one HTML page per run."""

from ._contact_sheet import Tile as Tile
from ._contact_sheet import contact_sheet as contact_sheet
from ._figures import AFTER as AFTER
from ._figures import BEFORE as BEFORE
from ._figures import TRUTH as TRUTH
from ._figures import Contour as Contour
from ._figures import radiograph_figure as radiograph_figure
from ._figures import silhouette_contours as silhouette_contours
from ._html import Column as Column
from ._html import Figure as Figure
from ._html import Report as Report
from ._html import ReportCase as ReportCase
from ._html import save_figures as save_figures
from ._html import write_html as write_html
from ._viewer import ViewerMesh as ViewerMesh
from ._viewer import ViewerPath as ViewerPath
from ._viewer import decimate as decimate
