"""The types of a job's spec under Python's names: `Checkpoint(directory="/checkpoints/sums", every_steps=5)`.

They are those of `ratchet_api`, which a manifest's camelCase makes; here both spellings are taken, so that editors and
type checkers know the arguments. A test holds the list to the API.
"""

from __future__ import annotations

from ratchet_api import advance as _advance
from ratchet_api import approvals as _approvals
from ratchet_api import budgets as _budgets
from ratchet_api import curation as _curation
from ratchet_api import datasets as _datasets
from ratchet_api import drift as _drift
from ratchet_api import evaluations as _evaluations
from ratchet_api import expansion as _expansion
from ratchet_api import job as _job
from ratchet_api import maintenance as _maintenance
from ratchet_api import method as _method
from ratchet_api import placements as _placements
from ratchet_api import pod_template as _pod_template
from ratchet_api import pod_volumes as _pod_volumes
from ratchet_api import rewards as _rewards
from ratchet_api import rewind as _rewind
from ratchet_api import rollouts as _rollouts
from ratchet_api import sampled_values as _sampled_values
from ratchet_api import sampling as _sampling
from ratchet_api import selection as _selection
from ratchet_api import stages as _stages
from ratchet_api import trackers as _trackers
from ratchet_api import verifiers as _verifiers


class Advance(_advance.Advance, populate_by_name=True): ...


class Guard(_advance.Guard, populate_by_name=True): ...


class Plateau(_advance.Plateau, populate_by_name=True): ...


class Stall(_advance.Stall, populate_by_name=True): ...


class When(_advance.When, populate_by_name=True): ...


class Approval(_approvals.Approval, populate_by_name=True): ...


class Budget(_budgets.Budget, populate_by_name=True): ...


class Curate(_curation.Curate, populate_by_name=True): ...


class Keep(_curation.Keep, populate_by_name=True): ...


class MakeHints(_curation.MakeHints, populate_by_name=True): ...


class Columns(_datasets.Columns, populate_by_name=True): ...


class Dataset(_datasets.Dataset, populate_by_name=True): ...


class HuggingFace(_datasets.HuggingFace, populate_by_name=True): ...


class Jsonl(_datasets.Jsonl, populate_by_name=True): ...


class Parquet(_datasets.Parquet, populate_by_name=True): ...


class ReasoningGym(_datasets.ReasoningGym, populate_by_name=True): ...


class WeightedDataset(_datasets.WeightedDataset, populate_by_name=True): ...


class Kl(_drift.Kl, populate_by_name=True): ...


class Reference(_drift.Reference, populate_by_name=True): ...


class Evaluation(_evaluations.Evaluation, populate_by_name=True): ...


class Export(_evaluations.Export, populate_by_name=True): ...


class Samples(_evaluations.Samples, populate_by_name=True): ...


class Expansion(_expansion.Expansion, populate_by_name=True): ...


class Template(_expansion.Template, populate_by_name=True): ...


class TrueHard(_expansion.TrueHard, populate_by_name=True): ...


class Checkpoint(_job.Checkpoint, populate_by_name=True): ...


class EnvFromSource(_pod_template.EnvFromSource, populate_by_name=True): ...


class EnvVar(_pod_template.EnvVar, populate_by_name=True): ...


class EnvVarSource(_pod_template.EnvVarSource, populate_by_name=True): ...


class JobSetTemplate(_job.JobSetTemplate, populate_by_name=True): ...


class Lora(_job.Lora, populate_by_name=True): ...


class Model(_job.Model, populate_by_name=True): ...


class Parallelism(_job.Parallelism, populate_by_name=True): ...


class ObjectReference(_pod_template.ObjectReference, populate_by_name=True): ...


class PodTemplate(_pod_template.PodTemplate, populate_by_name=True): ...


class PullSecret(_pod_template.PullSecret, populate_by_name=True): ...


class ClaimVolume(_pod_volumes.ClaimVolume, populate_by_name=True): ...


class ConfigMapVolume(_pod_volumes.ConfigMapVolume, populate_by_name=True): ...


class EmptyDir(_pod_volumes.EmptyDir, populate_by_name=True): ...


class EphemeralVolume(_pod_volumes.EphemeralVolume, populate_by_name=True): ...


class SecretVolume(_pod_volumes.SecretVolume, populate_by_name=True): ...


class Volume(_pod_volumes.Volume, populate_by_name=True): ...


class Reproducibility(_job.Reproducibility, populate_by_name=True): ...


class ResourceList(_pod_template.ResourceList, populate_by_name=True): ...


class Resources(_pod_template.Resources, populate_by_name=True): ...


class Restart(_job.Restart, populate_by_name=True): ...


class Spec(_job.Spec, populate_by_name=True): ...


class Maintenance(_maintenance.Maintenance, populate_by_name=True): ...


class Advantage(_method.Advantage, populate_by_name=True): ...


class Objective(_method.Objective, populate_by_name=True): ...


class Cpu(_placements.Cpu, populate_by_name=True): ...


class Placement(_placements.Placement, populate_by_name=True): ...


class Toleration(_placements.Toleration, populate_by_name=True): ...


class CorrectPrefixReward(_rewards.CorrectPrefixReward, populate_by_name=True): ...


class Cycle(_rewards.Cycle, populate_by_name=True): ...


class FormatReward(_rewards.FormatReward, populate_by_name=True): ...


class LanguageReward(_rewards.LanguageReward, populate_by_name=True): ...


class LengthReward(_rewards.LengthReward, populate_by_name=True): ...


class Rewind(_rewind.Rewind, populate_by_name=True): ...


class Rollouts(_rollouts.Rollouts, populate_by_name=True): ...


class StageRollouts(_rollouts.StageRollouts, populate_by_name=True): ...


class Workers(_rollouts.Workers, populate_by_name=True): ...


class Reward(_rewards.Reward, populate_by_name=True): ...


class UnfinishedReward(_rewards.UnfinishedReward, populate_by_name=True): ...


class Vine(_sampled_values.Vine, populate_by_name=True): ...


class Sampling(_sampling.Sampling, populate_by_name=True): ...


class Buffer(_selection.Buffer, populate_by_name=True): ...


class Selection(_selection.Selection, populate_by_name=True): ...


class Optimizer(_stages.Optimizer, populate_by_name=True): ...


class Rl(_stages.Rl, populate_by_name=True): ...


class Sft(_stages.Sft, populate_by_name=True): ...


class Stage(_stages.Stage, populate_by_name=True): ...


class Start(_stages.Start, populate_by_name=True): ...


class Mlflow(_trackers.Mlflow, populate_by_name=True): ...


class TensorBoard(_trackers.TensorBoard, populate_by_name=True): ...


class Trackers(_trackers.Trackers, populate_by_name=True): ...


class Trackio(_trackers.Trackio, populate_by_name=True): ...


class Wandb(_trackers.Wandb, populate_by_name=True): ...


class Answer(_verifiers.Answer, populate_by_name=True): ...


class CodeVerifier(_verifiers.CodeVerifier, populate_by_name=True): ...


class HttpVerifier(_verifiers.HttpVerifier, populate_by_name=True): ...


class PythonVerifier(_verifiers.PythonVerifier, populate_by_name=True): ...


class SecretKey(_verifiers.SecretKey, populate_by_name=True): ...


__all__ = [
    "Advance",
    "Advantage",
    "Answer",
    "Approval",
    "Budget",
    "Buffer",
    "Checkpoint",
    "ClaimVolume",
    "CodeVerifier",
    "Columns",
    "ConfigMapVolume",
    "CorrectPrefixReward",
    "Cpu",
    "Curate",
    "Cycle",
    "Dataset",
    "EmptyDir",
    "EnvFromSource",
    "EnvVar",
    "EnvVarSource",
    "EphemeralVolume",
    "Evaluation",
    "Expansion",
    "Export",
    "FormatReward",
    "Guard",
    "HttpVerifier",
    "HuggingFace",
    "JobSetTemplate",
    "Jsonl",
    "Keep",
    "Kl",
    "LanguageReward",
    "LengthReward",
    "Lora",
    "Maintenance",
    "MakeHints",
    "Mlflow",
    "Model",
    "ObjectReference",
    "Objective",
    "Optimizer",
    "Parallelism",
    "Parquet",
    "Placement",
    "Plateau",
    "PodTemplate",
    "PullSecret",
    "PythonVerifier",
    "ReasoningGym",
    "Reference",
    "Reproducibility",
    "ResourceList",
    "Resources",
    "Restart",
    "Reward",
    "Rewind",
    "Rl",
    "Rollouts",
    "Samples",
    "Sampling",
    "SecretKey",
    "SecretVolume",
    "Selection",
    "Sft",
    "Spec",
    "Stage",
    "StageRollouts",
    "Stall",
    "Start",
    "Template",
    "TensorBoard",
    "Toleration",
    "Trackers",
    "Trackio",
    "TrueHard",
    "UnfinishedReward",
    "Vine",
    "Volume",
    "Wandb",
    "WeightedDataset",
    "When",
    "Workers",
]
