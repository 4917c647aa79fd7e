// Resize an image with fetch: node resize.mjs photo.jpg out.webp
// In a browser, the body is a File of an <input type="file">; the server needs --cors-origin for that.
import { openAsBlob } from "node:fs";
import { writeFile } from "node:fs/promises";

const url = process.env.VIPSRV_URL ?? "http://127.0.0.1:8080";
const token = process.env.VIPSRV_TOKEN;
const [source, target] = process.argv.slice(2);

const parameters = new URLSearchParams({ width: 800, height: 600, fit: "inside", format: "webp" });
const response = await fetch(`${url}/resize?${parameters}`, {
  method: "POST",
  headers: token ? { Authorization: `Bearer ${token}` } : {},
  body: await openAsBlob(source),
});
if (!response.ok) {
  const problem = await response.json();
  console.error(`${problem.code}: ${problem.detail}`);
  process.exit(1);
}
await writeFile(target, Buffer.from(await response.arrayBuffer()));
console.log(response.headers.get("Vipsrv-Result"));
console.log(`${response.headers.get("Vipsrv-Ratio")} times smaller`);
