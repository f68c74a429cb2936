"""From ragged trajectories to batches of fixed shape, on the host (numpy)."""

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

__all__ = [
    "CompileCounter",
    "bucket_size",
    "concatenate_rows",
    "flatten_steps",
    "group_rows",
    "pack_groups",
    "pack_single_update",
    "pack_steps",
    "pack_trajectories",
    "prompt_ids",
    "row_layout",
    "rows_of_a_pass",
    "take_rows",
    "validate_batch",
]
