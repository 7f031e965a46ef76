"use strict";

/** Show the colour scale of the heatmap with its numbers. Scores beyond its ends have the colours of the ends. */
function showLegend(layer, explanation) {
  const legend = byId("legend");
  legend.hidden = !layer;
  if (!layer) return;
  const middle = layer.signed ? 0 : (layer.vmin + layer.vmax) / 2;
  const ramp = element("div", { class: "ramp" });
  ramp.style.background = `linear-gradient(to right, ${layer.colours.join(",")})`;
  const ticks = element("div", { class: "ticks" });
  ticks.append(...[`\u2264 ${number(layer.vmin)}`, number(middle), `\u2265 ${number(layer.vmax)}`].map((text) => element("span", {}, text)));
  const sides = layer.signed ? [element("div", { class: "ticks muted" }, ...signs(explanation).map((text) => element("span", {}, text)))] : [];
  legend.replaceChildren(element("strong", {}, layer.label), ramp, ticks, ...sides);
  legend.setAttribute("aria-label", `Colour scale from ${number(layer.vmin)} to ${number(layer.vmax)}: ${layer.meaning}`);
}

/** Return the meanings of scores below and above 0. */
function signs({ target, prediction }) {
  return Object.keys(prediction).length > 1 ? [`against ${target}`, `for ${target}`] : [`lowers the ${target}`, `raises the ${target}`];
}
