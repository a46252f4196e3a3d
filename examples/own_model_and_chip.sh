#!/usr/bin/env bash
# A model and a chip of your own: one file each, in a config folder of your own. Rows go to the folder $1 (default: results).
set -euo pipefail
own="$(cd "$(dirname "$0")" && pwd)/own"
shardbench run --config-dir "$own" model=mine-3b hw=mychip num_chips=8 'batch_size=[1,16,64]' results_dir="${1:-results}"
shardbench run --config-dir "$own" +sweep=mine results_dir="${1:-results}"
