#!/usr/bin/env bash
# How many chips make a decode step of each PaLM fast, and what does it cost? Two pivot tables of the rows of this repository.
set -euo pipefail
results=$(dirname "$0")/../../results/reference
out=${1:-$(mktemp -d)}
shardbench report pivot rows=[model,weight_dtype] columns=num_chips value=step_time_s aggregate=min \
  where=[phase=decode,hw=tpu-v4,input_len=1984] results_dir="$results" out="$out/steps" figures=none
shardbench report pivot rows=[model,weight_dtype] columns=num_chips value=cost_chip_s_per_token aggregate=min \
  where=[phase=decode,hw=tpu-v4,input_len=1984] results_dir="$results" out="$out/costs" figures=none
