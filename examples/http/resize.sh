#!/bin/sh
# Resize an image with curl: resize.sh photo.jpg out.webp
set -eu

url=${VIPSRV_URL:-http://127.0.0.1:8080}

# --data-binary @FILE would read the whole file into memory first; -T sends it as it is read.
curl --silent --show-error --fail --retry 3 -X POST -T "$1" -o "$2" --dump-header - \
    ${VIPSRV_TOKEN:+-H "Authorization: Bearer $VIPSRV_TOKEN"} \
    "$url/resize?width=800&height=600&fit=inside&format=webp" | grep -i '^vipsrv-'
