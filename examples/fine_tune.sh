#!/usr/bin/env bash
# Fine-tunes the top prior of the model that comes with this repository on a small corpus that it makes itself,
# puts it back beside the upsamplers, and measures both on songs that neither has seen. Some minutes on two cores.
#
#   examples/fine_tune.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-examples/fine-tuned}
model=models/small_demo
PATH="$PWD/.venv/bin:$PATH"

jukebox-deploy data synthesize --songs 24 --rate 16000 --seed 7 --out "$out/songs"
jukebox-deploy train prior --data "$out/songs" --bundle "$model" --fine-tune --out "$out/top" \
  --steps 60 --batch 4 --learning-rate 1e-4 --warm-up 10 --anneal 30
jukebox-deploy import trained "$model" "$out/top" --later-wins --out "$out/bundle"
jukebox-deploy evaluate "$model" --data "$out/songs"
jukebox-deploy evaluate "$out/bundle" --data "$out/songs"
