"""What training needs: losses and steps of the networks, errors of first guesses, and images made
to look like another machine's."""

from dartjax.training._isolate import alone as alone
from dartjax.training._isolate import beside as beside
from dartjax.training._isolate import isolate as isolate
from dartjax.training._isolation import GuessErrors as GuessErrors
from dartjax.training._isolation import IsolationSample as IsolationSample
from dartjax.training._isolation import guessed_surface as guessed_surface
from dartjax.training._isolation import hint_of as hint_of
from dartjax.training._isolation import isolation_errors as isolation_errors
from dartjax.training._isolation import isolation_loss as isolation_loss
from dartjax.training._loop import Schedule as Schedule
from dartjax.training._loop import TrainState as TrainState
from dartjax.training._loop import train_state as train_state
from dartjax.training._loop import train_step as train_step
from dartjax.training._randomise import RANDOMISATIONS as RANDOMISATIONS
from dartjax.training._randomise import RandomisationConfig as RandomisationConfig
from dartjax.training._randomise import Randomised as Randomised
from dartjax.training._randomise import random_warp as random_warp
from dartjax.training._randomise import randomise as randomise
from dartjax.training._randomise import randomise_with_labels as randomise_with_labels
