#!/bin/sh
# Upload an image by tus with curl, and resize it: upload.sh photo.jpg out.webp
set -eu

url=${VIPSRV_URL:-http://127.0.0.1:8080}
size=$(($(wc -c <"$1")))

tus() {
    curl --silent --show-error --fail -H 'Tus-Resumable: 1.0.0' \
        ${VIPSRV_TOKEN:+-H "Authorization: Bearer $VIPSRV_TOKEN"} "$@"
}

field() {
    tr -d '\r' | sed -n "s/^$1: //Ip"
}

upload=$(tus -X POST -H "Upload-Length: $size" --dump-header - "$url/files" | field Location)
attempts=20
while offset=$(tus --head "$upload" | field Upload-Offset) && [ "${offset:-0}" -lt "$size" ]; do
    [ $((attempts -= 1)) -gt 0 ] || exit 1
    tail -c "+$((${offset:-0} + 1))" "$1" |
        tus -X PATCH -H 'Content-Type: application/offset+octet-stream' -H "Upload-Offset: ${offset:-0}" \
            -T - -o /dev/null "$upload" || sleep 1
done

tus -X POST -o "$2" --dump-header - \
    "$url/resize?upload=${upload##*/}&width=800&height=600&fit=inside&format=webp" | grep -i '^vipsrv-'
