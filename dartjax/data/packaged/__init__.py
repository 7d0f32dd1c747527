"""Files packaged with dartjax: shape models, weights, failure model, published morphometry."""

from dartjax.data.packaged._failure_model import StoredFailureModel as StoredFailureModel
from dartjax.data.packaged._failure_model import load_failure_model as load_failure_model
from dartjax.data.packaged._failure_model import save_failure_model as save_failure_model
from dartjax.data.packaged._morphometry import Published as Published
from dartjax.data.packaged._morphometry import Sex as Sex
from dartjax.data.packaged._morphometry import plausible_range as plausible_range
from dartjax.data.packaged._morphometry import published as published
from dartjax.data.packaged._morphometry import published_targets as published_targets
from dartjax.data.packaged._shape_models import SUPERNUMERARY as SUPERNUMERARY
from dartjax.data.packaged._shape_models import as_stored as as_stored
from dartjax.data.packaged._shape_models import includes_subject as includes_subject
from dartjax.data.packaged._shape_models import load_shape_model as load_shape_model
from dartjax.data.packaged._shape_models import load_template as load_template
from dartjax.data.packaged._shape_models import same_subject as same_subject
from dartjax.data.packaged._shape_models import save_shape_models as save_shape_models
from dartjax.data.packaged._shape_models import save_template as save_template
from dartjax.data.packaged._shape_models import shape_model_card as shape_model_card
from dartjax.data.packaged._shape_models import shape_model_levels as shape_model_levels
from dartjax.data.packaged._shape_models import shape_model_set as shape_model_set
from dartjax.data.packaged._stored import open_arrays as open_arrays
from dartjax.data.packaged._weights import NETWORKS as NETWORKS
from dartjax.data.packaged._weights import load_weights as load_weights
from dartjax.data.packaged._weights import read_card as read_card
from dartjax.data.packaged._weights import save_weights as save_weights
