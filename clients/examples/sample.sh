#!/usr/bin/env bash
# Embed, reconstruct and decode one image with curl: bash sample.sh digit.png [URL]
set -euo pipefail
file=$1
url=${2:-http://127.0.0.1:8080}

# one file in, one embedding out: {"embedding":[x,y]}
curl -sS --fail-with-body --data-binary @"$file" -H 'Content-Type: image/png' \
  "$url/predictions/embed"
echo

# what the model remembers of the image, as a picture
curl -sS --fail-with-body --data-binary @"$file" -H 'Content-Type: image/png' \
  -H 'Accept: image/png' -o reconstruction.png "$url/predictions/reconstruct"

# the picture at a point of the map
curl -sS --fail-with-body -d '{"embeddings": [[0.5, -1.2]]}' -H 'Content-Type: application/json' \
  -H 'Accept: image/png' -o decoded.png "$url/predictions/decode"
