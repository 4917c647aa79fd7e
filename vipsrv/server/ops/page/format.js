"use strict";
// Numbers as text: three significant digits, with their unit.

const NONE = "–";

function significant(value) {
  if (value >= 99.5) return Math.round(value).toLocaleString("en");
  if (value >= 9.95) return value.toFixed(1);
  return value.toFixed(2);
}

function bytes(value) {
  if (value == null) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; value >= 999.5 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${unit ? significant(value) : Math.round(value)} ${units[unit]}`;
}

// As `bytes`, for the round values of a scale.
function shortBytes(value) {
  return bytes(value).replace(/\.0+ /, " ");
}

function milliseconds(value) {
  if (value == null) return NONE;
  if (value >= 999.5) return `${significant(value / 1000)} s`;
  return `${significant(value)} ms`;
}

function whole(value) {
  return value == null ? NONE : Math.round(value).toLocaleString("en");
}

function perSecond(value) {
  if (value == null) return NONE;
  return value >= 9.95 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : value.toFixed(1);
}

function percent(value) {
  return value == null ? NONE : `${Math.round(value * 100)} %`;
}

function times(value) {
  return value == null ? NONE : `${significant(value)} ×`;
}

function plural(number, word) {
  return `${whole(number)} ${word}${number === 1 ? "" : "s"}`;
}

function duration(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

function clockTime(epoch) {
  return new Date(epoch * 1000).toLocaleTimeString("en-GB");
}
