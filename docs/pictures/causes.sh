#!/bin/sh
# Makes patching.svg, steering.png and compare.png beside this script, from what the commands write of the demo's SAE.
#
#   npm run demo && docs/pictures/causes.sh        (needs Chromium: CHROME=/path/to/chromium)
#
# Which latents carry "she" depends on the SAE: `monosem patch --sae` names them, LATENTS takes them.
set -e
cd "$(dirname "$0")/../.."
MODEL=assets/tiny-gpt2 SAE=${SAE:-demo-output/sae} LATENTS=${LATENTS:-508}
PROMPT="The little girl was happy, because" CORRUPTED="The little boy was happy, because"
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
monosem() { node dist/cli/main.js "$@" > /dev/null; }
screenshot() { # PAGE PICTURE WIDTH,HEIGHT
  "${CHROME:-chromium}" --headless --no-sandbox --disable-gpu --hide-scrollbars --force-device-scale-factor=0.8 --user-data-dir="$WORK/profile" \
    --screenshot="$2" --window-size="$3" "file://$1" 2> /dev/null
}

monosem patch --model $MODEL --clean "$PROMPT" --corrupted "$CORRUPTED" --target " she" --against " he" \
  --components resid_pre attn_out --svg docs/pictures/patching.svg
monosem steer --model $MODEL --sae "$SAE" --prompt "The child was happy, because" --latent $LATENTS \
  --strengths -4 0 4 8 --samples 2 --max-new-tokens 32 --target " she" --html "$WORK/steering.html"
screenshot "$WORK/steering.html" docs/pictures/steering.png 1000,950
for start in "One day the" "The little" "Then the" "A happy"; do
  for end in "went home" "said no" "saw a dog" "ran away"; do
    for who in girl boy; do echo "{\"text\":\"$start $who $end\",\"label\":\"$who\"}"; done
  done
done > "$WORK/people.jsonl"
monosem compare --model $MODEL --sae "$SAE" --prompt "$PROMPT" --corrupted "$CORRUPTED" --target " she" --against " he" \
  --data "$WORK/people.jsonl" --positive girl --html "$WORK/compare.html"
screenshot "$WORK/compare.html" docs/pictures/compare.png 1080,1220
