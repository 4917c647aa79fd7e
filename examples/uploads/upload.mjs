// Upload an image by tus with tus-js-client, and resize it: node upload.mjs photo.jpg out.webp
// In a browser, the first argument of Upload is a File of an <input type="file">; the server needs --cors-origin.
import { createReadStream } from "node:fs";
import { writeFile } from "node:fs/promises";
import * as tus from "tus-js-client";

const url = process.env.VIPSRV_URL ?? "http://127.0.0.1:8080";
const token = process.env.VIPSRV_TOKEN;
const headers = token ? { Authorization: `Bearer ${token}` } : {};
const [source, target] = process.argv.slice(2);

const upload = await new Promise((resolve, reject) => {
  const upload = new tus.Upload(createReadStream(source), {
    endpoint: `${url}/files`,
    headers,
    retryDelays: [0, 100, 500, 1000, 1000, 1000, 5000],
    onError: reject,
    onSuccess: () => resolve(upload),
  });
  upload.start();
});

const parameters = new URLSearchParams({
  upload: upload.url.split("/").at(-1),
  ...{ width: 800, height: 600, fit: "inside", format: "webp" },
});
const reply = await fetch(`${url}/resize?${parameters}`, { method: "POST", headers });
if (!reply.ok) {
  const problem = await reply.json();
  console.error(`${problem.code}: ${problem.detail}`);
  process.exit(1);
}
await writeFile(target, Buffer.from(await reply.arrayBuffer()));
console.log(reply.headers.get("Vipsrv-Result"));
