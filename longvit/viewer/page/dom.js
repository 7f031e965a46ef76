"use strict";

/** Return the element with this id. */
const byId = (id) => document.getElementById(id);

/** Create an element; strings among the children become text, never HTML. */
function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** Create an SVG element. */
function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Format a number with three digits, without an exponent between 0.001 and 100,000. */
function number(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e-3 && size < 1e5 ? String(Number(value.toPrecision(3))) : value.toExponential(1);
  return text.replace("-", "\u2212").replace("e+", "e");
}

/** Format a share as a whole percentage; 0 and 100 only for exactly none and all. */
function percent(share) {
  return `${share <= 0 || share >= 1 ? Math.round(share * 100) : Math.min(99, Math.max(1, Math.round(share * 100)))}\u00a0%`;
}
