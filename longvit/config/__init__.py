"""Settings of every verb, free of torch: the sentence under a field is its help text and its YAML comment.

Other packages import settings only from here.
"""

from longvit.config.base import Device as Device
from longvit.config.base import OptimiserConfig as OptimiserConfig
from longvit.config.base import RunConfig as RunConfig
from longvit.config.cohort import PARTS as PARTS
from longvit.config.cohort import AnyTask as AnyTask
from longvit.config.cohort import AuditConfig as AuditConfig
from longvit.config.cohort import Part as Part
from longvit.config.cohort import SplitConfig as SplitConfig
from longvit.config.cohort import SplitsConfig as SplitsConfig
from longvit.config.cohort import TableConfig as TableConfig
from longvit.config.demo import DemoConfig as DemoConfig
from longvit.config.encoder import OLD_EXECUTION as OLD_EXECUTION
from longvit.config.encoder import STEM_STRIDE as STEM_STRIDE
from longvit.config.encoder import EmbeddingInput as EmbeddingInput
from longvit.config.encoder import EncoderConfig as EncoderConfig
from longvit.config.encoder import ExecutionConfig as ExecutionConfig
from longvit.config.encoder import LearnedPosition as LearnedPosition
from longvit.config.encoder import PixelInput as PixelInput
from longvit.config.encoder import SinCosPosition as SinCosPosition
from longvit.config.encoder import Stain as Stain
from longvit.config.encoder import TokenInput as TokenInput
from longvit.config.encoder import paired as paired
from longvit.config.encoder import without_execution as without_execution
from longvit.config.encoding import EncodeConfig as EncodeConfig
from longvit.config.evaluation import EvaluateConfig as EvaluateConfig
from longvit.config.explanation import ExplainConfig as ExplainConfig
from longvit.config.explanation import Method as Method
from longvit.config.finetuning import Baseline as Baseline
from longvit.config.finetuning import FinetuneConfig as FinetuneConfig
from longvit.config.finetuning import FinetuneOptimiserConfig as FinetuneOptimiserConfig
from longvit.config.finetuning import PredictConfig as PredictConfig
from longvit.config.presets import PRESETS as PRESETS
from longvit.config.pretraining import DinoConfig as DinoConfig
from longvit.config.pretraining import MaskedConfig as MaskedConfig
from longvit.config.pretraining import MocoConfig as MocoConfig
from longvit.config.pretraining import PretrainConfig as PretrainConfig
from longvit.config.pretraining import PretrainOptimiserConfig as PretrainOptimiserConfig
from longvit.config.pretraining import ProbeConfig as ProbeConfig
from longvit.config.pretraining import ViewsConfig as ViewsConfig
from longvit.config.viewer import ViewConfig as ViewConfig
from longvit.tasks.cox_task import CoxTask as CoxTask
from longvit.tasks.nll_task import NllTask as NllTask
from longvit.tasks.subtype_task import SubtypeTask as SubtypeTask
from longvit.tasks.task import MISSING_WORDS as MISSING_WORDS
from longvit.tasks.task import Endpoint as Endpoint
from longvit.tasks.task import LabelTask as LabelTask
from longvit.tasks.task import SurvivalTask as SurvivalTask
from longvit.tasks.task import TableName as TableName
from longvit.tasks.task import Task as Task
from longvit.tasks.task import TimeUnit as TimeUnit
from preprocessing.config import StageConfig
from preprocessing.config import TileConfig as TileConfig

VERBS: dict[str, type[StageConfig]] = {
    "tile": TileConfig,
    "pretrain": PretrainConfig,
    "split": SplitConfig,
    "audit": AuditConfig,
    "finetune": FinetuneConfig,
    "predict": PredictConfig,
    "encode": EncodeConfig,
    "evaluate": EvaluateConfig,
    "explain": ExplainConfig,
    "view": ViewConfig,
    "demo": DemoConfig,
}
"""Verb of the command line -> its settings."""
