"""Studies: from a TOML file to a frame of measurements."""

from smoothness.study.comparing import compare
from smoothness.study.comparison import Comparison
from smoothness.study.config import ConfigError, StudyConfig, load_config
from smoothness.study.run import Run, load_frame, load_run, run_study
from smoothness.study.shipped import find_study, list_studies
from smoothness.study.store import StoreError

__all__ = [
    "Comparison",
    "ConfigError",
    "Run",
    "StoreError",
    "StudyConfig",
    "compare",
    "find_study",
    "list_studies",
    "load_config",
    "load_frame",
    "load_run",
    "run_study",
]
