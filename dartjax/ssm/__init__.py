"""Statistical shape models of vertebrae."""

from dartjax.ssm._annotate import Annotation as Annotation
from dartjax.ssm._annotate import annotate as annotate
from dartjax.ssm._annotate import attach as attach
from dartjax.ssm._frame import vertebra_frame as vertebra_frame
from dartjax.ssm._gaussian_process import PRIOR_KERNELS as PRIOR_KERNELS
from dartjax.ssm._gaussian_process import REGISTRATION_KERNELS as REGISTRATION_KERNELS
from dartjax.ssm._gaussian_process import Kernel as Kernel
from dartjax.ssm._gaussian_process import gaussian_process_model as gaussian_process_model
from dartjax.ssm._model import ShapeModel as ShapeModel
from dartjax.ssm._model import instance as instance
from dartjax.ssm._model import landmarks as landmarks
from dartjax.ssm._model import log_prior as log_prior
from dartjax.ssm._model import paths as paths
from dartjax.ssm._model import posed as posed
from dartjax.ssm._model import truncate as truncate
from dartjax.ssm._surface_fit import Registration as Registration
from dartjax.ssm._surface_fit import dense_landmarks as dense_landmarks
from dartjax.ssm._surface_fit import fit_surface as fit_surface
from dartjax.ssm._surface_fit import register_surface as register_surface
from dartjax.ssm._template import Template as Template
from dartjax.ssm._template import build_template as build_template
