"""X-ray rendering: Gaussian splatting of surfaces, ray-cast DRRs and image similarities."""

from dartjax.render._accumulate import accumulate_dense as accumulate_dense
from dartjax.render._accumulate import accumulate_separable as accumulate_separable
from dartjax.render._accumulate import accumulate_windowed as accumulate_windowed
from dartjax.render._alpha import splat_alpha as splat_alpha
from dartjax.render._patches import Patches as Patches
from dartjax.render._patches import surface_patches as surface_patches
from dartjax.render._projection import DetectorGaussians as DetectorGaussians
from dartjax.render._projection import line_integral_of_gaussian as line_integral_of_gaussian
from dartjax.render._projection import project_gaussians as project_gaussians
from dartjax.render._projection import ray_geometry as ray_geometry
from dartjax.render._raycast import drr as drr
from dartjax.render._raycast import label_volume as label_volume
from dartjax.render._raycast import line_integral as line_integral
from dartjax.render._similarity import Similarity as Similarity
from dartjax.render._similarity import gradient_ncc as gradient_ncc
from dartjax.render._similarity import local_gradient_ncc as local_gradient_ncc
from dartjax.render._similarity import mutual_information as mutual_information
from dartjax.render._similarity import ncc as ncc
from dartjax.render._similarity import patch_ncc as patch_ncc
from dartjax.render._similarity import xvr_similarity as xvr_similarity
from dartjax.render._splat import SplatOptions as SplatOptions
from dartjax.render._splat import XrayChannels as XrayChannels
from dartjax.render._splat import splat as splat
from dartjax.render._splat import splat_scene as splat_scene
from dartjax.render._splat import suggest_window as suggest_window
from dartjax.render._splat import two_compartment as two_compartment
