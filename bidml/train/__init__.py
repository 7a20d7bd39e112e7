"""The training job: one configuration, one log → one certified artifact with its evaluation and report."""

from bidml.train.assess import Evaluation, evaluate
from bidml.train.config import LogConfig, ModelPart, TrainConfig, load_config, parse_config
from bidml.train.run import TrainingRun, train

__all__ = [
    "Evaluation",
    "LogConfig",
    "ModelPart",
    "TrainConfig",
    "TrainingRun",
    "evaluate",
    "load_config",
    "parse_config",
    "train",
]
