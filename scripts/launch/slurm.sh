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
: "${RETRIES:=50}" # turns of a job that ended with an error; a wrong command has one

again() {
  scontrol requeue "$SLURM_JOB_ID"
}

# A preset has to come first, so the run folder comes last. Processors are asked for
# again because srun no longer takes their number from the job.
code=0
srun --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
  "$PYTHON" -m experiments.osworld "$@" --run-dir "$RUN_DIR" || code=$?

# Five minutes before its time is up the run saves and stops: take another turn. One
# that lost a process goes on from its last checkpoint.
if ((code == 0)); then
  if grep -q '"status": "stopped"' "$RUN_DIR/result.json"; then again; fi
elif ((code != 2 && ${SLURM_RESTART_COUNT:-0} < RETRIES)); then
  again
else
  exit "$code"
fi
