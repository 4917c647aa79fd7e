"use strict";
// The comparison of an image with its result: both at the same size, and how similar they are.

// Draws `source` into a canvas of the size of the result, placed as the server places it for this fit.
function drawFitted(source, canvas, width, height, fit) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff"; // transparent areas become white, as in the server's default
  context.fillRect(0, 0, width, height);
  let across = width, down = height;
  if (fit === "cover" || fit === "contain") {
    const factors = [width / source.width, height / source.height];
    const factor = fit === "cover" ? Math.max(...factors) : Math.min(...factors);
    across = source.width * factor;
    down = source.height * factor;
  }
  drawReduced(context, source, (width - across) / 2, (height - down) / 2, across, down);
}

// Halves the image until less than a half remains to be reduced: a browser samples too few pixels otherwise.
function drawReduced(context, source, left, top, across, down) {
  let current = source;
  while (current.width > 2 * across && current.height > 2 * down) {
    const half = new OffscreenCanvas(Math.ceil(current.width / 2), Math.ceil(current.height / 2));
    const drawing = half.getContext("2d");
    drawing.imageSmoothingQuality = "high";
    drawing.drawImage(current, 0, 0, half.width, half.height);
    current = half;
  }
  context.drawImage(current, left, top, across, down);
}

function pixelsOf(image, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, width, height).data;
}

// Computes the similarity in a worker, so that the page stays responsive. A newer question replaces older ones.
class Similarity {
  constructor(program) {
    const address = URL.createObjectURL(new Blob([program], { type: "text/javascript" }));
    this.worker = new Worker(address);
    this.asked = 0;
    this.answers = new Map();
    this.worker.onmessage = ({ data: { id, value } }) => {
      this.answers.get(id)?.(value);
      this.answers.delete(id);
    };
  }

  of(first, second, width, height) {
    this.asked += 1;
    const id = this.asked;
    return new Promise((resolve) => {
      this.answers.set(id, resolve);
      this.worker.postMessage({ id, first, second, width, height }, [first.buffer, second.buffer]);
    });
  }
}
