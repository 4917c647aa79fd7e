// sharp behind HTTP for any chain of its methods: POST an image to /?CALLS, and the result comes back. CALLS is
// a JSON list of [method, argument, …] in percent-encoding; an argument {"base64": …} stands for those bytes.
// [["open", OPTIONS]] as the first call gives the options of the constructor.
"use strict";

const http = require("node:http");
const sharp = require("sharp");

sharp.concurrency(1);
sharp.cache(false);

const METHODS = new Set(
  "blur composite extend extract flip flop greyscale modulate resize rotate sharpen toFormat trim".split(" "),
);

function revive(_name, value) {
  return value && typeof value.base64 === "string" ? Buffer.from(value.base64, "base64") : value;
}

async function run(image, calls) {
  const options = calls.length > 0 && calls[0][0] === "open" ? calls.shift()[1] : {};
  let chain = sharp(image, options);
  for (const [method, ...values] of calls) {
    if (!METHODS.has(method)) throw new Error(`no method ${method}`);
    chain = chain[method](...values);
  }
  return chain.toBuffer();
}

const server = http.createServer({ maxHeaderSize: 1 << 20 }, (request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", async () => {
    try {
      const calls = JSON.parse(decodeURIComponent(request.url.slice("/?".length)), revive);
      const result = await run(Buffer.concat(parts), calls);
      response.writeHead(200, { "Content-Length": result.length });
      response.end(result);
    } catch (error) {
      response.writeHead(422);
      response.end(String(error));
    }
  });
});

// The connection is idle while the other server has its turn; Node would close it after 5 s.
server.keepAliveTimeout = 0;

server.listen(0, "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
