"use strict";

const STEPS = 256;

/** Return red, green and blue of each step of a scale, from its evenly spaced colours. */
function colourTable(stops) {
  const parsed = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  const table = new Uint8Array(STEPS * 3);
  for (let step = 0; step < STEPS; step++) {
    const at = (step / (STEPS - 1)) * (parsed.length - 1);
    const left = Math.min(Math.floor(at), parsed.length - 2);
    for (let channel = 0; channel < 3; channel++) {
      const [from, to] = [parsed[left][channel], parsed[left + 1][channel]];
      table[step * 3 + channel] = Math.round(from + (to - from) * (at - left));
    }
  }
  return table;
}

/** Return a picture of a grid, one pixel per token; places without a token are transparent. */
function paintGrid(rc, colourOf) {
  let rows = 0;
  let columns = 0;
  for (let i = 0; i < rc.length; i += 2) {
    rows = Math.max(rows, rc[i] + 1);
    columns = Math.max(columns, rc[i + 1] + 1);
  }
  const canvas = element("canvas", { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let i = 0; i < rc.length; i += 2) {
    const colour = colourOf(i / 2);
    if (colour) image.data.set(colour, (rc[i] * columns + rc[i + 1]) * 4);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Return a picture of scores on their grid. */
function paintScores(rc, scores, layer) {
  const table = colourTable(layer.colours);
  const span = layer.vmax - layer.vmin;
  return paintGrid(rc, (token) => {
    const score = scores[token];
    if (Number.isNaN(score)) return null;
    const share = Math.min(1, Math.max(0, (score - layer.vmin) / span));
    const step = Math.round(share * (STEPS - 1)) * 3;
    return [table[step], table[step + 1], table[step + 2], 255];
  });
}
