#!/usr/bin/env bash
# A complete training and fine-tuning run in small: synthesizes a small corpus, trains `tiny` on it for a few steps,
# fine-tunes the top prior on another corpus, and evaluates both priors on songs that neither was trained on. Takes a
# few minutes on two cores, enough to run every part but not to make music.
#
#   examples/fine_tune.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-examples/fine-tuned}
PATH="$PWD/.venv/bin:$PATH"

jukebox-deploy data synthesize --songs 12 --seed 1 --out "$out/songs"
jukebox-deploy train vqvae --data "$out/songs" --preset tiny --seconds 0.4 \
  --steps 160 --batch 4 --learning-rate 1e-3 --out "$out/vqvae"
jukebox-deploy train prior --data "$out/songs" --preset tiny --bundle "$out/vqvae/bundle" --codes "$out/codes" \
  --steps 60 --batch 8 --learning-rate 1e-3 --out "$out/top"

jukebox-deploy data synthesize --songs 12 --seed 2 --out "$out/new-songs"
jukebox-deploy train prior --data "$out/new-songs" --fine-tune --bundle "$out/top/bundle" --codes "$out/codes" \
  --steps 30 --batch 8 --learning-rate 2e-4 --warm-up 5 --anneal 15 --out "$out/tuned"
for model in top tuned; do
  jukebox-deploy evaluate "$out/$model/bundle" --data "$out/new-songs" --codes "$out/codes" --windows 8 --songs 2 --seconds 8
done
