"""What training needs: images made to look like another machine's."""

from dartjax.training._randomise import RANDOMISATIONS as RANDOMISATIONS
from dartjax.training._randomise import RandomisationConfig as RandomisationConfig
from dartjax.training._randomise import Randomised as Randomised
from dartjax.training._randomise import random_warp as random_warp
from dartjax.training._randomise import randomise as randomise
from dartjax.training._randomise import randomise_with_labels as randomise_with_labels
