#!/usr/bin/env bash
# Start a run on all hosts of a TPU slice, or go on with it: the command is the same.
#
#   TPU_NAME=my-slice ZONE=us-east5-a RUN_DIR=/mnt/runs/osworld \
#     scripts/launch/tpu_vm.sh --mesh.fsdp 16 --checkpoint.save-every 1
#
# Ends with code 0 when the run is finished. RETRIES=20 goes on by itself after
# errors, saved stops and preemptions, once the slice is there again; it waits for that
# for WAIT minutes.
set -euo pipefail

: "${TPU_NAME:?the name of the TPU slice}"
: "${ZONE:?the zone of the TPU slice}"
: "${RUN_DIR:?a folder that all hosts share, on Filestore for example}"
: "${REPO:=stepjax}"      # the checkout, in the home folder of each host
: "${PYTHON:=.venv/bin/python}"
: "${RETRIES:=0}"
: "${WAIT:=60}"

printf -v flags ' %q' "$@" --run-dir "$RUN_DIR" # a preset has to come first
printf -v result '%q' "$RUN_DIR/result.json"
# A run that was stopped ends with code 0 too.
command="cd $REPO && $PYTHON -m experiments.osworld$flags && grep -q finished $result"

ready() {
  state=$(gcloud compute tpus tpu-vm describe "$TPU_NAME" --zone="$ZONE" \
    --format='value(state)') || state="not found"
  [ "$state" = READY ]
}

for ((try = 0; ; try++)); do
  # TPU VMs know of each other: no --launch flags.
  gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" --worker=all \
    --command="$command" && exit 0
  if ((try >= RETRIES)); then
    echo "tpu_vm.sh: the run is not finished; the same command goes on with it." >&2
    exit 1
  fi
  for ((minute = 0; ; minute++)); do
    ready && break
    if ((minute >= WAIT)); then
      echo "tpu_vm.sh: $TPU_NAME is still ${state:-without a state} after $WAIT minutes;" \
        "make it again, then run the same command." >&2
      exit 1
    fi
    sleep 60
  done
done
