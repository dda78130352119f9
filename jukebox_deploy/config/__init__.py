"""Configuration of a model: frozen dataclasses that are validated when they are constructed.

Pure Python (no torch), so that declarations, costs and the command line can import it quickly.
Levels are counted as in the original code: level 0 is the finest ("bottom"), the last one is the top level.
Source: specification sections 2 to 13 and 21.
"""

from jukebox_deploy.config.convolutions import ConditionerConfig, VQVAEConfig
from jukebox_deploy.config.labels import LabelConfig, LabelRules, LyricsConfig, TimingConfig
from jukebox_deploy.config.prior import PriorConfig
from jukebox_deploy.config.system import JukeboxConfig
from jukebox_deploy.config.transformer import TransformerConfig

__all__ = [
    "ConditionerConfig",
    "JukeboxConfig",
    "LabelConfig",
    "LabelRules",
    "LyricsConfig",
    "PriorConfig",
    "TimingConfig",
    "TransformerConfig",
    "VQVAEConfig",
]
