"""STEP, success-rate-aware policy optimization for multi-turn agents, in JAX.

The names here are layers 0 to 2: pytrees, kernels, losses, log-probabilities, batching.
Importing them costs jax and numpy. The train step (`stepjax.training`), the policy
(`stepjax.models`) and the environments (`stepjax.envs`) are imported by name.
"""

from stepjax._checks import check_task_ids as check_task_ids
from stepjax.batching.compile_counter import CompileCounter as CompileCounter
from stepjax.batching.groups import group_rows as group_rows
from stepjax.batching.groups import pack_groups as pack_groups
from stepjax.batching.groups import prompt_ids as prompt_ids
from stepjax.batching.packing import bucket_size as bucket_size
from stepjax.batching.packing import pack_single_update as pack_single_update
from stepjax.batching.packing import pack_steps as pack_steps
from stepjax.batching.packing import pack_trajectories as pack_trajectories
from stepjax.batching.passes import rows_of_a_pass as rows_of_a_pass
from stepjax.batching.rows import concatenate_rows as concatenate_rows
from stepjax.batching.rows import flatten_steps as flatten_steps
from stepjax.batching.rows import row_layout as row_layout
from stepjax.batching.rows import take_rows as take_rows
from stepjax.batching.validation import validate_batch as validate_batch
from stepjax.kernels.advantages import centered_advantages as centered_advantages
from stepjax.kernels.advantages import group_advantages as group_advantages
from stepjax.kernels.advantages import (
    leave_one_out_advantages as leave_one_out_advantages,
)
from stepjax.kernels.advantages import (
    length_corrected_step_advantages as length_corrected_step_advantages,
)
from stepjax.kernels.advantages import step_advantages as step_advantages
from stepjax.kernels.advantages import success_rate_advantage as success_rate_advantage
from stepjax.kernels.advantages import (
    success_rate_baseline_advantage as success_rate_baseline_advantage,
)
from stepjax.kernels.augmentation import augmentation_mask as augmentation_mask
from stepjax.kernels.augmentation import step_group_advantages as step_group_advantages
from stepjax.kernels.augmentation import (
    step_group_advantages_keep_plain as step_group_advantages_keep_plain,
)
from stepjax.kernels.masked import masked_center as masked_center
from stepjax.kernels.masked import masked_mean as masked_mean
from stepjax.kernels.masked import masked_std as masked_std
from stepjax.kernels.masked import masked_sum as masked_sum
from stepjax.kernels.masked import safe_divide as safe_divide
from stepjax.kernels.resampling import cache_mask as cache_mask
from stepjax.kernels.resampling import replacement_prob as replacement_prob
from stepjax.kernels.resampling import resample_tasks as resample_tasks
from stepjax.kernels.resampling import sampling_weights as sampling_weights
from stepjax.kernels.segments import segment_center as segment_center
from stepjax.kernels.segments import segment_ids as segment_ids
from stepjax.kernels.segments import segment_std as segment_std
from stepjax.kernels.state_groups import (
    discounted_step_returns as discounted_step_returns,
)
from stepjax.kernels.state_groups import (
    normalized_state_group_advantages as normalized_state_group_advantages,
)
from stepjax.kernels.state_groups import (
    ragged_group_advantages as ragged_group_advantages,
)
from stepjax.kernels.state_groups import (
    state_group_advantages as state_group_advantages,
)
from stepjax.kernels.success_rate import init_success_rate as init_success_rate
from stepjax.kernels.success_rate import update_success_rate as update_success_rate
from stepjax.log_probs import chunked_token_log_probs as chunked_token_log_probs
from stepjax.log_probs import step_log_prob as step_log_prob
from stepjax.log_probs import token_log_probs as token_log_probs
from stepjax.losses.kl import entropy as entropy
from stepjax.losses.kl import kl_k1 as kl_k1
from stepjax.losses.kl import kl_k2 as kl_k2
from stepjax.losses.kl import kl_k3 as kl_k3
from stepjax.losses.policy import clipped_policy_loss as clipped_policy_loss
from stepjax.losses.policy import clipped_ratio_loss as clipped_ratio_loss
from stepjax.losses.policy import sequence_ratio as sequence_ratio
from stepjax.losses.policy import token_ratio as token_ratio
from stepjax.losses.policy import (
    truncated_importance_weight as truncated_importance_weight,
)
from stepjax.losses.reductions import step_mean as step_mean
from stepjax.losses.reductions import token_mean as token_mean
from stepjax.losses.reductions import trajectory_mean as trajectory_mean
from stepjax.losses.reductions import trajectory_weights as trajectory_weights
from stepjax.losses.step_grpo import step_grpo_loss as step_grpo_loss
from stepjax.types import LossOutput as LossOutput
from stepjax.types import PolicyOutput as PolicyOutput
from stepjax.types import ScreenPrompt as ScreenPrompt
from stepjax.types import ScreenshotPrompt as ScreenshotPrompt
from stepjax.types import StepBatch as StepBatch
from stepjax.types import SuccessRateRecord as SuccessRateRecord
from stepjax.types import Trajectories as Trajectories
from stepjax.types import WeightedSum as WeightedSum

__all__ = [
    "prompt_ids",
    "pack_groups",
    "group_rows",
    "CompileCounter",
    "LossOutput",
    "PolicyOutput",
    "ScreenPrompt",
    "ScreenshotPrompt",
    "StepBatch",
    "SuccessRateRecord",
    "Trajectories",
    "WeightedSum",
    "augmentation_mask",
    "bucket_size",
    "cache_mask",
    "centered_advantages",
    "check_task_ids",
    "chunked_token_log_probs",
    "clipped_policy_loss",
    "clipped_ratio_loss",
    "concatenate_rows",
    "discounted_step_returns",
    "entropy",
    "flatten_steps",
    "group_advantages",
    "init_success_rate",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "leave_one_out_advantages",
    "length_corrected_step_advantages",
    "masked_center",
    "masked_mean",
    "masked_std",
    "masked_sum",
    "normalized_state_group_advantages",
    "pack_single_update",
    "pack_steps",
    "pack_trajectories",
    "ragged_group_advantages",
    "replacement_prob",
    "resample_tasks",
    "row_layout",
    "rows_of_a_pass",
    "safe_divide",
    "sampling_weights",
    "segment_center",
    "segment_ids",
    "segment_std",
    "sequence_ratio",
    "state_group_advantages",
    "step_advantages",
    "step_group_advantages",
    "step_group_advantages_keep_plain",
    "step_grpo_loss",
    "step_log_prob",
    "step_mean",
    "success_rate_advantage",
    "success_rate_baseline_advantage",
    "take_rows",
    "token_log_probs",
    "token_mean",
    "token_ratio",
    "trajectory_mean",
    "trajectory_weights",
    "truncated_importance_weight",
    "update_success_rate",
    "validate_batch",
]
