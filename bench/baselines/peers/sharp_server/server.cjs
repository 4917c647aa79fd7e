// sharp behind HTTP: POST an image to /WIDTH/HEIGHT/FORMAT/QUALITY, and the result comes back. FORMAT is jpeg,
// webp or avif.
// With --plain its Huffman tables are the standard's, and not optimised for it.
"use strict";

const http = require("node:http");
const sharp = require("sharp");

if (process.argv[2] === "--version") {
  console.log(`sharp ${sharp.versions.sharp}, libvips ${sharp.versions.vips}, Node ${process.versions.node}`);
  process.exit(0);
}
const optimiseCoding = process.argv[2] !== "--plain";

// A thread an image and as many images at a time as there are cores (UV_THREADPOOL_SIZE): sharp's own
// advice for throughput. No request repeats another one, so nothing is kept.
sharp.concurrency(1);
sharp.cache(false);

const server = http.createServer((request, response) => {
  const [, width, height, format, quality] = request.url.split("/");
  const options = { quality: Number(quality) };
  if (format === "jpeg") options.optimiseCoding = optimiseCoding;
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", async () => {
    try {
      const result = await sharp(Buffer.concat(parts))
        .resize(Number(width), Number(height), { fit: "fill" })
        .toFormat(format, options)
        .toBuffer();
      response.writeHead(200, { "Content-Type": `image/${format}`, "Content-Length": result.length });
      response.end(result);
    } catch (error) {
      response.writeHead(422);
      response.end(String(error));
    }
  });
});

server.listen(0, "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
