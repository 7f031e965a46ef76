"use strict";

/** Open a deep zoom of a slide in an element of the page. One unit of its viewport is the slide's width. */
function openPicture(place, number, slide, options = {}) {
  const [width, height] = slide.pyramid.size;
  const picture = OpenSeadragon({
    element: place,
    drawer: "canvas", // WebGL may not read pictures of a page opened from disk
    showNavigationControl: false,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    animationTime: 0.5,
    maxZoomPixelRatio: 6,
    minZoomImageRatio: 0.6,
    visibilityRatio: 0.3,
    zoomPerScroll: 1.3,
    tileSources: {
      width,
      height,
      tileSize: slide.pyramid.tile,
      tileOverlap: 0,
      minLevel: slide.pyramid.min_level,
      maxLevel: slide.pyramid.max_level,
      getTileUrl: (level, x, y) => LongViT.picture(`data/${number}/tiles/${level}/${x}_${y}.jpg`),
    },
    ...options,
  });
  picture.addHandler("canvas-key", (event) => {
    if (/^[rf]$/i.test(event.originalEvent.key)) event.preventDefaultAction = true; // slides are not rotated or flipped
  });
  return picture;
}

/** Return the rectangle of the viewport that shows a box of level-0 pixels. */
function boxInView(slide, [x_l0, y_l0, width_l0, height_l0]) {
  const unit = 1 / slide.size_l0[0];
  return new OpenSeadragon.Rect(x_l0 * unit, y_l0 * unit, width_l0 * unit, height_l0 * unit);
}
