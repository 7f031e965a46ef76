"use strict";

/** Element of the page by its id. */
const byId = (id) => document.getElementById(id);

/** A new element; strings among the children become text, never HTML. */
function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** A new element of a drawing. */
function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Three digits, without an exponent where that stays readable. */
function number(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e-3 && size < 1e5 ? String(Number(value.toPrecision(3))) : value.toExponential(1);
  return text.replace("-", "\u2212").replace("e+", "e");
}

/** A share as a whole percentage; the ends are kept for what is really there. */
function percent(share) {
  return `${share <= 0 || share >= 1 ? Math.round(share * 100) : Math.min(99, Math.max(1, Math.round(share * 100)))}\u00a0%`;
}
