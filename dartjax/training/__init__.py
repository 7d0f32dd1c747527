"""What training needs: losses and steps of the networks, errors of first guesses, and images made
to look like another machine's."""

from dartjax.training._isolate import alone as alone
from dartjax.training._isolate import beside as beside
from dartjax.training._isolate import isolate as isolate
from dartjax.training._isolation import ISOLATION_SPLATS as ISOLATION_SPLATS
from dartjax.training._isolation import GuessErrors as GuessErrors
from dartjax.training._isolation import guessed_surface as guessed_surface
from dartjax.training._isolation import hint_of as hint_of
from dartjax.training._isolation import isolation_errors as isolation_errors
from dartjax.training._isolation import isolation_loss as isolation_loss
from dartjax.training._loop import Loss as Loss
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
from dartjax.training._similarity import Fit as Fit
from dartjax.training._similarity import FitErrors as FitErrors
from dartjax.training._similarity import direction_loss as direction_loss
from dartjax.training._similarity import disturbed as disturbed
from dartjax.training._similarity import moved as moved
from dartjax.training._similarity import predicted_way as predicted_way
from dartjax.training._similarity import prediction_loss as prediction_loss
from dartjax.training._similarity import ranking_loss as ranking_loss
from dartjax.training._similarity import surface_error as surface_error
from dartjax.training._similarity import view_pairs as view_pairs
from dartjax.training._similarity import way_to as way_to
