#!/usr/bin/env bash
# Start a run on all hosts of a TPU slice, or go on with it: the command is the same.
#
#   TPU_NAME=my-slice ZONE=us-east5-a RUN_DIR=/mnt/runs/osworld \
#     scripts/launch/tpu_vm.sh --mesh.fsdp 16 --checkpoint.save-every 1
#
# RETRIES=20 goes on by itself after preemptions, once the slice is there again.
set -euo pipefail

: "${TPU_NAME:?the name of the TPU slice}"
: "${ZONE:?the zone of the TPU slice}"
: "${RUN_DIR:?a folder that all hosts share, on Filestore for example}"
: "${REPO:=stepjax}"      # the checkout, in the home folder of each host
: "${PYTHON:=.venv/bin/python}"
: "${RETRIES:=0}"

printf -v flags ' %q' "$@" --run-dir "$RUN_DIR" # a preset has to come first
command="cd $REPO && exec $PYTHON -m experiments.osworld$flags"

ready() {
  local state
  state=$(gcloud compute tpus tpu-vm describe "$TPU_NAME" --zone="$ZONE" \
    --format='value(state)')
  [ "$state" = READY ]
}

for ((try = 0; ; try++)); do
  # TPU VMs know of each other: no --launch flags.
  gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" --worker=all \
    --command="$command" && exit 0
  ((try < RETRIES)) || exit 1
  until ready; do sleep 60; done
done
