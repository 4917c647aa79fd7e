# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by check: builds the target `full` and tries each further format with files that Debian's own encoders write.

"${docker[@]}" "${build[@]}" "${build_ours[@]}" --target full --tag "$image-full" "$root" >"$work/build.log" 2>&1 \
    || fail "docker build --target full:"$'\n'"$(tail -n 30 "$work/build.log")"
ok "the target full is built: $(size "$image-full") MB"

# The encoders, and an image of theirs in each format. What a drawing refers to must not be read.
"${docker[@]}" "${build[@]}" --file - --tag "$image-encoders" "$here" >"$work/build.log" 2>&1 <<DOCKERFILE \
    || fail "the encoders of Debian:"$'\n'"$(tail -n 30 "$work/build.log")"
FROM $base
RUN apt-get update && apt-get install --yes --no-install-recommends \
        libheif-examples libheif-plugin-x265 libjxl-tools libopenjp2-tools librsvg2-bin
DOCKERFILE
files=$work/files
mkdir --mode 777 "$files"
python3 "$here/probe.py" sample "$files/gradient.png"
chmod 644 "$files/gradient.png"
drawing='<rect width="640" height="480" fill="teal"/><text x="20" y="90" font-size="60">vipsrv</text>'
svg() { echo "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"640\" height=\"480\">$drawing$2</svg>" >"$files/$1"; }
svg drawing.svg ""
svg drawing-refers.svg '<image href="file:///files/gradient.png" width="640" height="480"/>
    <image href="http://127.0.0.1:9464/" width="640" height="480"/><style>@import "/files/style.css";</style>'
echo 'rect { fill: red }' >"$files/style.css"
# The same without its text, with what a viewer would run when it opens the file. Poppler makes the missing table of
# objects itself.
cat >"$files/drawing-refers.pdf" <<'PDF'
%PDF-1.4
1 0 obj <</Type /Catalog /Pages 2 0 R /OpenAction <</S /JavaScript /JS (while \(true\) {})>>
    /AA <</WC <</S /Launch /F (/bin/sh)>>>>>> endobj
2 0 obj <</Type /Pages /Kids [3 0 R] /Count 1>> endobj
3 0 obj <</Type /Page /Parent 2 0 R /MediaBox [0 0 640 480] /Contents 4 0 R
    /AA <</O <</S /URI /URI (http://127.0.0.1:9464/)>>>>>> endobj
4 0 obj <</Length 34>> stream
0 0.502 0.502 rg 0 0 640 480 re f
endstream endobj
trailer <</Root 1 0 R>>
%%EOF
PDF
"${docker[@]}" run --rm --label "$image" --volume "$files:/files" --workdir /files --entrypoint sh "$image-encoders" -ec '
    heif-enc -q 90 -o gradient.heic gradient.png
    cjxl -q 90 gradient.png gradient.jxl
    opj_compress -r 10 -i gradient.png -o gradient.jp2
    rsvg-convert -o drawing.png drawing.svg
    rsvg-convert -f pdf -o drawing.pdf drawing.svg' >"$work/run.log" 2>&1 \
    || fail "the encoders of Debian: $(cat "$work/run.log")"

formats=$("${docker[@]}" image inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$image-full" \
    | sed -n 's/^VIPSRV_FORMATS=//p')
container=$("${docker[@]}" run --detach "${hardened[@]}" --volume "$files:/files:ro" --health-interval 1s \
    --env "VIPSRV_FORMATS=$formats,svg,pdf" "$image-full" 2>"$work/run.log") || fail "docker run: $(cat "$work/run.log")"
within 30 healthy || fail "the health check of the target full: $(inspect '{{json .State.Health}}')"
timeout 60 "${docker[@]}" exec --interactive "$container" python - /files <"$here/compare.py" \
    || fail "the further formats"
[ -z "$(logged "ended: ")" ] || fail "a worker has ended: $(logged "ended: ")"
attack "${hardened[@]}" --env VIPSRV_FORMATS="$formats,svg,pdf" "$image-full" \
    || fail "an attack from a worker's place, with more libraries:"$'\n'"$(cat "$work/attack.log")"
"${docker[@]}" rm --force "$container" >/dev/null
ok "HEIC, JPEG XL, JPEG 2000, SVG and PDF, confined, and nothing that a drawing refers to or wants to start"

container=
read=$("${docker[@]}" run --rm --label "$image" "$image-full" formats 2>/dev/null)
if ! grep -q '^  jp2 ' <<<"$read" || grep -Eq '^  (svg|pdf|hdr) ' <<<"$read"; then
    fail "the formats that the target full reads by default: $read"
fi
ok "SVG and PDF are read only if they are named"
