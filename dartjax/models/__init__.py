"""Neural networks (flax): written for one case, with parameters as plain dicts."""

from dartjax.models._isolation import ISOLATION_PRESETS as ISOLATION_PRESETS
from dartjax.models._isolation import Hint as Hint
from dartjax.models._isolation import Isolated as Isolated
from dartjax.models._isolation import IsolationConfig as IsolationConfig
from dartjax.models._isolation import IsolationNet as IsolationNet
from dartjax.models._isolation import no_hint as no_hint
from dartjax.models._similarity import SIMILARITY_PRESETS as SIMILARITY_PRESETS
from dartjax.models._similarity import MultiViewSimilarity as MultiViewSimilarity
from dartjax.models._similarity import PredictedError as PredictedError
from dartjax.models._similarity import SimilarityConfig as SimilarityConfig
from dartjax.models._similarity import ViewPair as ViewPair
from dartjax.models._similarity import view_code as view_code
from dartjax.models._swin import SWIN_PRESETS as SWIN_PRESETS
from dartjax.models._swin import PatchMerging as PatchMerging
from dartjax.models._swin import SwinBlock as SwinBlock
from dartjax.models._swin import SwinConfig as SwinConfig
from dartjax.models._swin import SwinTransformer as SwinTransformer
from dartjax.models._swin import WindowAttention as WindowAttention
