"""Networks: written for one case, their parameters plain dicts."""

from dartjax.models._swin import SWIN_PRESETS as SWIN_PRESETS
from dartjax.models._swin import PatchMerging as PatchMerging
from dartjax.models._swin import SwinBlock as SwinBlock
from dartjax.models._swin import SwinConfig as SwinConfig
from dartjax.models._swin import SwinTransformer as SwinTransformer
from dartjax.models._swin import WindowAttention as WindowAttention
