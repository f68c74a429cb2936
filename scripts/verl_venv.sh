#!/usr/bin/env bash
# An environment with verl's advantage and loss functions on CPU, for benchmarks and for
# tests marked `oracle`:  scripts/verl_venv.sh [FOLDER]
set -euo pipefail
folder=${1:-.venv-verl}
"${PYTHON:-python3.11}" -m venv "$folder"
"$folder/bin/pip" install -qq torch==2.13.0 numpy
"$folder/bin/pip" install -qq --no-deps verl==0.9.1
# What importing verl.trainer.ppo.core_algos needs, without its servers and launchers.
"$folder/bin/pip" install -qq codetiming==1.4.0 hydra-core==1.3.8 omegaconf==2.3.1 \
  orjson==3.13.0 pandas==3.1.1 ray==2.60.0 tensordict==0.10.0 torchdata==0.11.0 \
  transformers==5.10.4
VERL_FORCE_DEVICE=cpu "$folder/bin/python" -c 'import verl.trainer.ppo.core_algos'
echo "ready: $folder/bin/python"
