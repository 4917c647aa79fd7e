"use strict";
// The program of the worker: the mean structural similarity of two images of the same size.
//
// Wang, Bovik, Sheikh, Simoncelli: Image Quality Assessment: From Error Visibility to Structural Similarity
// (2004), with windows of 8 × 8 pixels, a step of 4, and the luma of BT.601.

const WINDOW = 8;
const STRIDE = 4;
const C1 = (0.01 * 255) ** 2;
const C2 = (0.03 * 255) ** 2;

function luma(rgba) {
  const grey = new Float32Array(rgba.length / 4);
  for (let pixel = 0, at = 0; pixel < grey.length; pixel += 1, at += 4) {
    grey[pixel] = 0.299 * rgba[at] + 0.587 * rgba[at + 1] + 0.114 * rgba[at + 2];
  }
  return grey;
}

function windowSimilarity(a, b, width, left, top, across, down) {
  let sumA = 0, sumB = 0, squareA = 0, squareB = 0, product = 0;
  for (let row = top; row < top + down; row += 1) {
    for (let at = row * width + left, end = at + across; at < end; at += 1) {
      const x = a[at], y = b[at];
      sumA += x;
      sumB += y;
      squareA += x * x;
      squareB += y * y;
      product += x * y;
    }
  }
  const number = across * down;
  const meanA = sumA / number, meanB = sumB / number;
  const varianceA = squareA / number - meanA * meanA, varianceB = squareB / number - meanB * meanB;
  const covariance = product / number - meanA * meanB;
  return ((2 * meanA * meanB + C1) * (2 * covariance + C2)) / ((meanA * meanA + meanB * meanB + C1) * (varianceA + varianceB + C2));
}

function similarity(first, second, width, height) {
  const a = luma(first), b = luma(second);
  const across = Math.min(WINDOW, width), down = Math.min(WINDOW, height);
  let total = 0, windows = 0;
  for (let top = 0; top + down <= height; top += STRIDE) {
    for (let left = 0; left + across <= width; left += STRIDE) {
      total += windowSimilarity(a, b, width, left, top, across, down);
      windows += 1;
    }
  }
  return total / windows;
}

self.onmessage = ({ data: { id, first, second, width, height } }) => {
  self.postMessage({ id, value: similarity(first, second, width, height) });
};
