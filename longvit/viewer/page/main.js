"use strict";

/** The page: one slide at a time, its layers, and the reader's choices. */
class Viewer {
  constructor(index) {
    this.index = index;
    this.opened = 0; // number of slides opened, so that late data of another slide is dropped
    listSlides(index, (number) => this.open(number));
    this.connect();
    const wanted = index.slides.findIndex((slide) => slide.slide_id === decodeURIComponent(location.hash.slice(1)));
    const explained = index.slides.findIndex((slide) => slide.explained);
    this.open(Math.max(0, wanted >= 0 ? wanted : explained));
  }

  async open(number) {
    const mine = ++this.opened;
    this.picture?.destroy();
    this.picture = this.zoomed = this.layers = null;
    say("");
    markSlide(number);
    const slide = await LongViT.load(`data/${number}/slide.js`).catch((error) => ({ error: { what: error.message, where: "", fix: "" } }));
    if (mine !== this.opened) return;
    const name = this.index.slides[number].slide_id;
    byId("slide-name").textContent = document.title = name;
    // A frame in a notebook has no address of its own, and does not accept one.
    if (location.protocol !== "about:") history.replaceState(null, "", `#${encodeURIComponent(name)}`);
    document.querySelector("aside").hidden = byId("scale").hidden = byId("zoom").hidden = Boolean(slide.error);
    byId("slide-facts").textContent = slide.error ? "" : facts(slide);
    if (slide.error) {
      showLegend(null);
      return say(`This slide cannot be shown.\n${slide.error.what}\n${slide.error.where}\n${slide.error.fix}`.trim());
    }
    Object.assign(this, { number, slide, scores: new Map(), layer: null, chosen: null });
    this.tiles = new Places(integers(slide.tiles.rc), slide.tiles.side_l0);
    this.tissue = decimals(slide.tiles.tissue);
    this.tokens = null;
    this.picture = openPicture(byId("picture"), number, slide, { showNavigator: true, navigatorSizeRatio: 0.16 });
    this.picture.addHandler("canvas-click", (event) => event.quick && this.choose(...this.placeOf(event.position)));
    this.picture.addHandler("tile-load-failed", () => say("A part of the picture could not be loaded. Either the viewer was stopped, or the slide cannot be read; see its terminal."));
    followScale(this.picture, slide);
    this.layers = new Layers(this.picture, slide);
    this.showLayers();
    showPatient(this.index.cohort, slide);
    this.showPlace();
    await this.offerMethods(mine);
  }

  /** Fill the pickers and show the first layer, or how to make one. */
  async offerMethods(mine) {
    const explanation = this.slide.explanation;
    byId("heat-empty").hidden = Boolean(explanation);
    byId("heat-controls").hidden = byId("steps").hidden = !explanation;
    byId("show-heat").disabled = !explanation;
    if (!explanation) {
      byId("heat-empty").replaceChildren(element("p", { class: "muted" }, "This slide has not been explained. Make its heatmaps with ",
        element("code", {}, "longvit explain --model RUN --stores STORES --out DIR"), " and show them with ", element("code", {}, "longvit view \u2026 --explanations DIR"), "."));
      return showLegend(null);
    }
    const methods = [...new Set(explanation.layers.map((layer) => layer.method))];
    byId("method").replaceChildren(...methods.map((method) => element("option", { value: method }, methodName(method))));
    const packed = await LongViT.load(`data/${this.number}/tokens.js`).catch((error) => say(error.message));
    if (!packed || mine !== this.opened) return;
    this.tokens = new Places(integers(packed), explanation.side_l0);
    await this.offerLayers();
  }

  async offerLayers() {
    const layers = this.slide.explanation.layers.filter((layer) => layer.method === byId("method").value);
    byId("layer").replaceChildren(...layers.map((layer) => element("option", { value: layer.key }, layer.label)));
    byId("layer").disabled = layers.length < 2;
    await this.showHeat();
  }

  async showHeat() {
    const mine = this.opened;
    const layer = this.slide.explanation.layers.find((one) => one.key === byId("layer").value);
    const scores = await this.scoresOf(layer).catch((error) => say(error.message));
    if (!scores || mine !== this.opened || layer.key !== byId("layer").value) return;
    this.layer = layer;
    this.order = byScore(scores);
    this.layers.heat = { canvas: paintScores(this.tokens.rc, scores, layer), side_l0: this.tokens.side_l0 };
    this.layers.draw();
    byId("meaning").textContent = layer.meaning;
    this.showLegend();
    this.showScores();
  }

  showLegend() {
    showLegend(byId("show-heat").checked ? this.layer : null, this.slide.explanation);
  }

  async scoresOf(layer) {
    const number = this.slide.explanation.layers.indexOf(layer);
    const into = this.scores;
    if (!into.has(layer.key)) into.set(layer.key, decimals(await LongViT.load(`data/${this.number}/layers/${number}.js`)));
    return into.get(layer.key);
  }

  /** Return the level-0 pixel under a pixel of the page. */
  placeOf(position) {
    const point = this.picture.viewport.pointFromPixel(position, true);
    return [point.x * this.slide.size_l0[0], point.y * this.slide.size_l0[0]];
  }

  /** Choose the token at a level-0 pixel, or the tile if the slide is not explained. */
  async choose(x_l0, y_l0) {
    const [tile, token] = [this.tiles.at(x_l0, y_l0), this.tokens?.at(x_l0, y_l0)];
    this.chosen = tile === undefined && token === undefined ? null : { tile, token };
    this.showPlace();
    if (token === undefined) return;
    const mine = this.chosen;
    await Promise.all(this.slide.explanation.layers.map((layer) => this.scoresOf(layer))).catch((error) => say(error.message));
    if (mine === this.chosen) this.showScores();
  }

  /** Choose a token by its rank, 0 for the highest score, and move it into view. */
  chooseRank(rank) {
    if (!this.layer || !this.order.length) return;
    const token = this.order[Math.min(this.order.length - 1, Math.max(0, rank))];
    const [x, y, width, height] = this.tokens.box(token);
    const around = boxInView(this.slide, [x - 4 * width, y - 4 * height, 9 * width, 9 * height]);
    this.picture.viewport.fitBounds(around);
    this.choose(x + width / 2, y + height / 2);
  }

  rankOfChosen() {
    return this.chosen?.token === undefined ? -1 : this.order.indexOf(this.chosen.token);
  }

  showPlace() {
    const { chosen } = this;
    const box = chosen && (chosen.token === undefined ? this.tiles.box(chosen.tile) : this.tokens.box(chosen.token));
    this.layers.chosen = box;
    this.layers.draw();
    this.zoomed?.destroy();
    this.zoomed = null;
    const place = byId("place");
    if (!chosen) return place.replaceChildren(element("p", { class: "muted" }, "Click a tile on the slide to see it enlarged, with its scores."));
    const frame = element("div", { class: "zoomed", "aria-label": "The tile, enlarged" });
    place.replaceChildren(frame, element("p", { class: "note" }, this.words(box)), element("div", { id: "scores" }));
    this.zoom(frame, box);
    this.showScores();
  }

  /** Show the scores of the chosen token in all loaded layers. */
  showScores() {
    const token = this.chosen?.token;
    if (token === undefined || !this.layer) return;
    byId("scores").replaceChildren(scoreTable(this.slide.explanation.layers, this.scores, token, this.layer));
  }

  /** Show the chosen tile in a small picture, with the token outlined. */
  zoom(frame, box) {
    const tile = this.chosen.tile === undefined ? box : this.tiles.box(this.chosen.tile);
    const [x, y, width, height] = tile;
    const around = boxInView(this.slide, [x - width * 0.15, y - height * 0.15, width * 1.3, height * 1.3]);
    this.zoomed = openPicture(frame, this.number, this.slide, { immediateRender: true });
    this.zoomed.addHandler("open", ({ eventSource }) => eventSource.viewport.fitBounds(around, true));
    this.zoomed.addOverlay({ element: element("div", { class: "tile" }), location: boxInView(this.slide, tile) });
    if (box[2] < width) this.zoomed.addOverlay({ element: element("div", { class: "token" }), location: boxInView(this.slide, box) });
  }

  words(box) {
    const { tile, token } = this.chosen;
    const at = (places, index) => `row ${places.rowColumn(index)[0]}, column ${places.rowColumn(index)[1]}`;
    const mm = box.slice(0, 2).map((l0) => ((l0 * this.slide.mpp_l0) / 1000).toFixed(2));
    const parts = [`At ${mm[0]}, ${mm[1]} mm (level-0 pixel ${Math.round(box[0])}, ${Math.round(box[1])}).`];
    if (tile !== undefined) parts.push(`Tile ${at(this.tiles, tile)}, ${percent(this.tissue[tile])} tissue.`);
    if (token !== undefined && box[2] < this.tiles.side_l0[0]) parts.push(`Token ${at(this.tokens, token)}, outlined.`);
    return parts.join(" ");
  }

  showLayers() {
    const checked = (name) => byId(`show-${name}`).checked;
    this.layers.shown = { heat: checked("heat"), mask: checked("mask"), grid: checked("grid") };
    this.layers.opacity = byId("opacity").value / 100;
    byId("opacity-text").textContent = `${byId("opacity").value} %`;
    byId("mask-key").hidden = !checked("mask");
    this.showLegend();
    if (checked("mask") && !this.layers.mask) {
      const layers = this.layers;
      const mask = new Image();
      mask.onload = () => { layers.mask = mask; layers.draw(); };
      mask.src = LongViT.picture(`data/${this.number}/mask.png`);
    }
    this.layers.draw();
  }

  connect() {
    const on = (id, event, act) => byId(id).addEventListener(event, () => this.layers && act());
    for (const id of ["show-heat", "show-mask", "show-grid"]) on(id, "change", () => this.showLayers());
    on("opacity", "input", () => this.showLayers());
    on("method", "change", () => this.offerLayers());
    on("layer", "change", () => this.showHeat());
    on("zoom-in", "click", () => this.picture.viewport.zoomBy(1.6));
    on("zoom-out", "click", () => this.picture.viewport.zoomBy(1 / 1.6));
    on("zoom-home", "click", () => this.picture.viewport.goHome());
    on("highest", "click", () => this.chooseRank(0));
    on("lowest", "click", () => this.chooseRank(Infinity));
    on("previous", "click", () => this.chooseRank(this.rankOfChosen() - 1));
    on("next", "click", () => this.chooseRank(this.rankOfChosen() + 1));
    byId("mask-key").append(...Object.entries(this.index.mask).map(([name, colour]) => {
      const chip = element("i");
      chip.style.background = colour;
      return element("span", {}, chip, name === "blurred" ? "out of focus" : name);
    }));
  }
}

const METHODS = {
  contribution: "Contribution",
  received: "Attention received",
  rollout: "Attention rollout",
  gradient: "Gradient \u00d7 input",
  integrated_gradients: "Integrated gradients",
  occlusion: "Occlusion",
  pooling: "Pooling weights",
};

const methodName = (method) => METHODS[method] ?? method.replaceAll("_", " ");

function facts(slide) {
  const mm = slide.size_l0.map((side) => ((side * slide.mpp_l0) / 1000).toFixed(1));
  const reduced = slide.pyramid.reduced ? `, reduced to ${number((slide.size_l0[0] * slide.mpp_l0) / slide.pyramid.size[0])} \u00b5m per pixel in this copy` : "";
  const warnings = slide.warnings.length ? ` \u00b7 Note: ${slide.warnings.join("; ")}` : "";
  return `${mm[0]} \u00d7 ${mm[1]} mm \u00b7 ${slide.tiles.count.toLocaleString("en")} tiles \u00b7 Pixels: ${slide.pixels}${reduced}${warnings}`;
}

/** Show an error over the slide; an empty text removes it. */
function say(text) {
  byId("message").textContent = text;
  byId("message").hidden = !text;
}

LongViT.load("data/index.js").then((index) => { window.viewer = new Viewer(index); }, (error) => say(error.message));
