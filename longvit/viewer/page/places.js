"use strict";

/** Squares of a grid with gaps, found by place and by index. */
class Places {
  constructor(rc, side_l0) {
    this.rc = rc;
    this.side_l0 = side_l0;
    this.byKey = new Map();
    for (let i = 0; i < rc.length; i += 2) this.byKey.set(`${rc[i]},${rc[i + 1]}`, i / 2);
  }

  /** Return the index of the square at a place, or undefined. */
  at(x_l0, y_l0) {
    return this.byKey.get(`${Math.floor(y_l0 / this.side_l0[1])},${Math.floor(x_l0 / this.side_l0[0])}`);
  }

  /** Return row and column of a square. */
  rowColumn(index) {
    return [this.rc[index * 2], this.rc[index * 2 + 1]];
  }

  /** Return left, top, width and height of a square, level-0 pixels. */
  box(index) {
    const [row, column] = this.rowColumn(index);
    return [column * this.side_l0[0], row * this.side_l0[1], ...this.side_l0];
  }
}

/** Return tokens from the highest to the lowest score; tokens without a score are left out. */
function byScore(scores) {
  const order = [...scores.keys()].filter((token) => !Number.isNaN(scores[token]));
  return order.sort((a, b) => scores[b] - scores[a]);
}

/** Return the share of tokens with a lower score. */
function shareBelow(scores, score) {
  let below = 0;
  for (const other of scores) below += other < score;
  return scores.length > 1 ? below / (scores.length - 1) : 0;
}

/** Return a table with a row per layer: the token's score and the share of the slide's tokens below it. */
function scoreTable(layers, scoresOf, token, current) {
  const rows = layers.filter((layer) => scoresOf.has(layer.key)).map((layer) => {
    const scores = scoresOf.get(layer.key);
    const cells = Number.isNaN(scores[token]) ? ["none", ""] : [number(scores[token]), percent(shareBelow(scores, scores[token]))];
    const row = element("tr", layer === current ? { "aria-current": "true" } : {}, element("th", { scope: "row" }, layer.label));
    row.append(...cells.map((text) => element("td", {}, text)));
    return row;
  });
  const head = element("tr", {}, ...["Layer", "Score", "Above"].map((text) => element("th", { scope: "col" }, text)));
  return element("table", { title: "Above: share of the slide's tokens with a lower score" }, element("thead", {}, head), element("tbody", {}, ...rows));
}
