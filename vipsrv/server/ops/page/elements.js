"use strict";
// Elements of the document: found by id, made, and changed only where they differ. Text never becomes markup.

const SVG = "http://www.w3.org/2000/svg";

function byId(id) {
  return document.getElementById(id);
}

function make(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function makeSvg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

// Shows a value for each item of a list: `create` makes an element, `update` fills it. Elements are kept by
// the key of their item, so that what has the focus or is selected stays.
class KeyedList {
  constructor(parent, { key, create, update }) {
    this.parent = parent;
    this.key = key;
    this.create = create;
    this.update = update;
    this.elements = new Map();
  }

  show(items) {
    const kept = new Map();
    let place = this.parent.firstElementChild;
    for (const item of items) {
      const key = this.key(item);
      const element = this.elements.get(key) ?? this.create(item);
      kept.set(key, element);
      this.update(element, item);
      if (element === place) place = place.nextElementSibling;
      else this.parent.insertBefore(element, place);
    }
    for (const [key, element] of this.elements) if (kept.get(key) !== element) element.remove();
    this.elements = kept;
  }
}

function setBar(rail, part) {
  rail.firstElementChild.style.width = `${Math.min(100, Math.max(0, part * 100)).toFixed(1)}%`;
}

const reducedMotion = window.matchMedia("(prefers-reduced-motion: reduce)");
