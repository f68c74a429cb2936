#!/usr/bin/env bash
# Start a run on GPU nodes, or go on with it: sbatch scripts/launch/slurm.sh [preset] [flags].
# One process a node, with all its GPUs. Processes find each other through srun.
#SBATCH --job-name=stepjax
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

: "${RUN_DIR:=$PWD/runs/osworld}" # a folder that all nodes share
: "${PYTHON:=.venv/bin/python}"

# A preset has to come first, so the run folder comes last.
srun --kill-on-bad-exit=1 "$PYTHON" -m experiments.osworld "$@" --run-dir "$RUN_DIR"

# Five minutes before its time is up the run saves and stops: take another turn.
if grep -q '"status": "stopped"' "$RUN_DIR/result.json"; then
  scontrol requeue "$SLURM_JOB_ID"
fi
