"""Layer 2: ratios, clipped losses, KL estimators, reductions, and the STEP loss."""

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
