"use strict";

const FINE_PX = 5; // tiles smaller than this on the screen are drawn as an area, not as a grid

/** Layers over the slide: heatmap, tissue mask, tile grid and the chosen tile, drawn again when the view moves. */
class Layers {
  constructor(picture, slide) {
    this.picture = picture;
    this.slide = slide;
    this.shown = { heat: true, mask: false, grid: false };
    this.opacity = 0.6;
    this.heat = null; // { canvas, side_l0 }
    this.mask = null;
    this.chosen = null; // left, top, width, height, level-0 pixels
    this.tiles_rc = integers(slide.tiles.rc);
    this.area = paintGrid(this.tiles_rc, () => [29, 39, 51, 70]);
    this.canvas = element("canvas", { class: "layers", "aria-hidden": "true" });
    this.canvas.style.cssText = "position:absolute;inset:0;pointer-events:none";
    picture.canvas.append(this.canvas);
    for (const event of ["update-viewport", "open", "resize"]) picture.addHandler(event, () => this.draw());
  }

  /** Return left, top, width and height on the screen of a rectangle in level-0 pixels. */
  onScreen(x_l0, y_l0, width_l0, height_l0) {
    const unit = 1 / this.slide.size_l0[0];
    const [corner, end] = [[x_l0, y_l0], [x_l0 + width_l0, y_l0 + height_l0]].map(([x, y]) =>
      this.picture.viewport.pixelFromPoint(new OpenSeadragon.Point(x * unit, y * unit), true));
    return [corner.x, corner.y, end.x - corner.x, end.y - corner.y];
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.picture.canvas;
    const ratio = window.devicePixelRatio || 1;
    Object.assign(this.canvas, { width: width * ratio, height: height * ratio });
    Object.assign(this.canvas.style, { width: `${width}px`, height: `${height}px` });
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.imageSmoothingEnabled = false;
    if (this.shown.heat && this.heat) this.drawGrid(context, this.heat.canvas, this.heat.side_l0, this.opacity);
    if (this.shown.mask && this.mask) context.drawImage(this.mask, ...this.onScreen(0, 0, ...this.slide.size_l0));
    if (this.shown.grid) this.drawTiles(context);
    if (this.chosen) outline(context, this.onScreen(...this.chosen));
  }

  /** Draw the visible part of a picture with one pixel per token. */
  drawGrid(context, grid, side_l0, opacity) {
    const [left, top, side_x, side_y] = this.onScreen(0, 0, ...side_l0);
    const { clientWidth, clientHeight } = this.picture.canvas;
    const inSight = (start, side, length, most) => {
      const first = Math.max(0, Math.floor(-start / side));
      return [first, Math.max(0, Math.min(most, Math.ceil((length - start) / side)) - first)];
    };
    const [column, columns] = inSight(left, side_x, clientWidth, grid.width);
    const [row, rows] = inSight(top, side_y, clientHeight, grid.height);
    if (!columns || !rows) return;
    context.globalAlpha = opacity;
    context.drawImage(grid, column, row, columns, rows, left + column * side_x, top + row * side_y, columns * side_x, rows * side_y);
    context.globalAlpha = 1;
  }

  drawTiles(context) {
    const [left, top, side_x, side_y] = this.onScreen(0, 0, ...this.slide.tiles.side_l0);
    if (side_x < FINE_PX) return this.drawGrid(context, this.area, this.slide.tiles.side_l0, 1);
    const { clientWidth, clientHeight } = this.picture.canvas;
    context.strokeStyle = "rgb(29 39 51 / .75)";
    context.lineWidth = 1;
    context.beginPath();
    for (let i = 0; i < this.tiles_rc.length; i += 2) {
      const [x, y] = [left + this.tiles_rc[i + 1] * side_x, top + this.tiles_rc[i] * side_y];
      if (x > -side_x && y > -side_y && x < clientWidth && y < clientHeight) context.rect(x, y, side_x, side_y);
    }
    context.stroke();
  }
}

function outline(context, [x, y, width, height]) {
  for (const [colour, line] of [["#1d2733", 5], ["#fff", 2]]) {
    Object.assign(context, { strokeStyle: colour, lineWidth: line });
    context.strokeRect(x - 1, y - 1, width + 2, height + 2);
  }
}
