"use strict";
// The place to try an image: takes it, sends it, shows what came back.
//
//     EMPTY ──image──► SENDING ──reply──► SHOWN ──other options, other image──► SENDING
//                          └──refused, failed──► REFUSED ──┘

const LabState = Object.freeze({ EMPTY: "empty", SENDING: "sending", SHOWN: "shown", REFUSED: "refused" });

const PAUSE_MS = 250; // between the last change of an option and the request

// A refusal of the server, or no connection to it.
class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

class Lab {
  constructor({ tokens, announce }) {
    this.tokens = tokens;
    this.announce = announce;
    this.state = LabState.EMPTY;
    this.file = null;
    this.bitmap = null; // of the original, null if the browser cannot decode it
    this.running = null; // aborts the request in flight
    this.timer = 0;
    this.addresses = [];
    this.similarity = null;
    this.commands = new Commands(byId("commands"), announce);
    this.listen();
    this.showCommands();
  }

  listen() {
    byId("lab-form").addEventListener("submit", (event) => event.preventDefault());
    byId("file").addEventListener("change", ({ target }) => target.files[0] && this.take(target.files[0]));
    for (const name of ["width", "height", "fit", "format", "quality"]) byId(name).addEventListener("input", () => this.changed());
    byId("cut").addEventListener("input", ({ target }) => this.cutAt(target.value));
    this.listenForDrops();
    document.addEventListener("paste", (event) => {
      const file = [...(event.clipboardData?.files ?? [])][0];
      if (file) this.take(file);
    });
    const stage = byId("stage");
    stage.addEventListener("pointermove", (event) => {
      if (event.buttons || event.pointerType === "mouse") {
        const { left, width } = stage.getBoundingClientRect();
        const part = Math.round(Math.min(100, Math.max(0, ((event.clientX - left) / width) * 100)));
        byId("cut").value = part;
        this.cutAt(part);
      }
    });
    byId("forget-token").addEventListener("click", () => {
      this.tokens.forget();
      this.showCommands();
      this.announce("The token is forgotten");
    });
  }

  listenForDrops() {
    let inside = 0;
    const dragging = (change) => {
      inside = Math.max(0, inside + change);
      document.body.classList.toggle("dragging", inside > 0);
    };
    const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    addEventListener("dragenter", (event) => hasFiles(event) && dragging(1));
    addEventListener("dragleave", (event) => hasFiles(event) && dragging(-1));
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      dragging(-inside);
      const file = event.dataTransfer?.files[0];
      if (file) {
        this.take(file);
        byId("try").scrollIntoView();
      }
    });
  }

  get choice() {
    const number = (id) => {
      const value = Math.round(Number(byId(id).value));
      return value >= 1 && value <= 65535 ? value : null;
    };
    return { width: number("width"), height: number("height"), fit: byId("fit").value, format: byId("format").value, quality: Number(byId("quality").value) };
  }

  changed() {
    setText(byId("quality-shown"), byId("quality").value);
    byId("quality").disabled = this.choice.format === "png";
    byId("fit").disabled = !(this.choice.width && this.choice.height);
    this.showCommands();
    clearTimeout(this.timer);
    if (this.file) this.timer = setTimeout(() => this.send(), PAUSE_MS);
  }

  showCommands() {
    const withToken = this.tokens.has;
    byId("forget-token").hidden = !withToken;
    this.commands.show(commandsFor(this.choice, { name: this.file?.name || "photo.jpg", origin: location.origin, withToken }));
    setText(byId("commands-note"), withToken ? "with the token in the variable VIPSRV_TOKEN" : "");
  }

  async take(file) {
    // What comes back for the image before must not be shown as the result of this one.
    this.running?.abort();
    this.running = null;
    this.file = file;
    setText(byId("drop-text"), `${file.name || "pasted image"}, ${bytes(file.size)}`);
    this.showCommands();
    this.bitmap?.close();
    this.bitmap = null;
    const decoding = createImageBitmap(file).catch(() => null);
    const bitmap = await decoding;
    if (this.file !== file) return;
    this.bitmap = bitmap;
    await this.send();
  }

  enter(state, message = "") {
    this.state = state;
    document.body.dataset.lab = state;
    const element = byId("message");
    element.dataset.kind = state === LabState.REFUSED ? "error" : "";
    setText(element, message);
  }

  async send() {
    this.running?.abort();
    const running = new AbortController();
    this.running = running;
    const { file, choice } = this;
    this.enter(LabState.SENDING, "Sending …");
    try {
      const reply = await this.request(file, choice, running.signal);
      if (this.running !== running) return;
      await this.show(reply, choice, () => this.running === running);
    } catch (error) {
      if (this.running !== running || error.name === "AbortError") return;
      this.hideResult();
      this.enter(LabState.REFUSED, error.message);
    }
  }

  // Sends the image; where a token is needed, asks for it and sends again.
  async request(file, choice, signal) {
    for (;;) {
      const begun = performance.now();
      let response;
      try {
        response = await fetch(`/resize?${queryOf(choice)}`, { method: "POST", body: file, signal, headers: this.tokens.headers, cache: "no-store", credentials: "omit" });
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new Refusal(0, "The server could not be reached, or it closed the connection.");
      }
      if (response.ok) {
        const blob = await response.blob();
        return { blob, headers: response.headers, elapsed: performance.now() - begun };
      }
      const refusal = await refusalOf(response);
      if (response.status !== 401) throw refusal;
      const given = await this.tokens.ask(this.tokens.has ? "The server does not accept this token." : "");
      if (!given) throw refusal;
      this.showCommands();
    }
  }

  // Shows a reply while it `isWanted`, which ends when another request is made or another image is taken.
  async show({ blob, headers, elapsed }, choice, isWanted) {
    const image = await createImageBitmap(blob).catch(() => null);
    if (!isWanted()) return;
    const address = URL.createObjectURL(blob);
    for (const old of this.addresses.splice(0)) URL.revokeObjectURL(old);
    this.addresses.push(address);
    const timing = parseServerTiming(headers.get("server-timing") ?? "");
    fact("source", bytes(this.file.size), describe(headers.get("vipsrv-source")));
    fact("result", bytes(blob.size), describe(headers.get("vipsrv-result")));
    fact("ratio", times(this.file.size / blob.size), changeOf(this.file.size, blob.size));
    const process = timing.get("process") ?? timing.get("total");
    fact("server", milliseconds(process), [...timing].filter(([name]) => name !== "process" && name !== "total").map(([name, ms]) => `${name} ${milliseconds(ms)}`).join(", "));
    fact("trip", milliseconds(elapsed), "as this browser measured it");
    fact("ssim", NONE, "");
    byId("figures").hidden = false;
    byId("actions").hidden = false;
    const download = byId("download");
    download.href = address;
    download.download = `${(this.file.name || "image").replace(/\.[^.]*$/, "")}-${image?.width ?? ""}x${image?.height ?? ""}.${ENDINGS[choice.format]}`;
    await this.showImages(image, address, choice, isWanted);
    if (!isWanted()) return;
    this.enter(LabState.SHOWN, "");
    this.announce(`The result has ${bytes(blob.size)}, ${changeOf(this.file.size, blob.size)}.`);
    await this.compare(image, blob);
  }

  async showImages(image, address, choice, isWanted) {
    byId("stage").hidden = byId("slider").hidden = !image;
    byId("hint").hidden = Boolean(image);
    if (!image) {
      setText(byId("hint"), "This browser cannot show the format of the result. Save it to look at it.");
      return;
    }
    const after = byId("after");
    after.src = address;
    after.alt = `The result: ${image.width} × ${image.height} ${choice.format}`;
    await after.decode().catch(() => {});
    if (!isWanted()) return;
    byId("stage").style.setProperty("--natural", `${image.width}px`);
    const comparable = Boolean(this.bitmap);
    for (const id of ["before", "seam", "tag-before"]) byId(id).hidden = !comparable;
    byId("slider").hidden = !comparable;
    const fit = choice.width && choice.height ? choice.fit : "inside";
    if (comparable) drawFitted(this.bitmap, byId("before"), image.width, image.height, fit);
  }

  async compare(image, blob) {
    if (!image || !this.bitmap) {
      fact("ssim", NONE, "this browser cannot decode both images");
      return;
    }
    const { width, height } = image;
    const context = byId("before").getContext("2d", { willReadFrequently: true });
    const first = context.getImageData(0, 0, width, height).data;
    this.similarity ??= new Similarity(byId("ssim-program").textContent);
    this.compared = blob;
    const value = await this.similarity.of(first, pixelsOf(image, width, height), width, height);
    image.close();
    if (this.compared === blob) fact("ssim", value.toFixed(4), "1 equals the browser's own reduction");
  }

  hideResult() {
    for (const id of ["stage", "slider", "figures", "actions"]) byId(id).hidden = true;
    byId("hint").hidden = false;
    setText(byId("hint"), "No result.");
  }

  cutAt(part) {
    byId("stage").style.setProperty("--cut", `${part}%`);
  }
}

// "jpeg;width=800;height=600;…" as "800 × 600 jpeg" (RFC 9651: an item with parameters).
function describe(field) {
  const [format, ...parameters] = (field ?? "").split(";");
  const facts = new Map(parameters.map((one) => one.split("=")));
  return facts.has("width") ? `${facts.get("width")} × ${facts.get("height")} ${format}` : "";
}

function changeOf(before, after) {
  return after <= before ? `${percent(1 - after / before)} less` : `${percent(after / before - 1)} more`;
}

function fact(name, value, more) {
  byId(`fig-${name}`).replaceChildren(value, ...(more ? [make("small", {}, more)] : []));
}

// A refusal as RFC 9457 tells it: the title, and what is wrong with this request.
async function refusalOf(response) {
  const problem = await response.json().catch(() => null);
  const words = [problem?.title, problem?.detail].filter((text) => typeof text === "string");
  return new Refusal(response.status, `${response.status}: ${words.join(": ") || response.statusText || "refused"}`);
}

// "queue;dur=1.5, process;dur=20" as names and milliseconds (W3C Server Timing).
function parseServerTiming(text) {
  const found = new Map();
  for (const metric of text.split(",")) {
    const [name, ...parameters] = metric.split(";").map((part) => part.trim());
    const duration = parameters.find((one) => one.startsWith("dur="));
    if (name && duration) found.set(name, Number(duration.slice(4)));
  }
  return found;
}
