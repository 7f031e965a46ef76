"use strict";

const BAR_PX = 130;

/** Keep the scale bar at a round length, and show the micrometres per pixel of the screen. */
function followScale(picture, slide) {
  const width_um = slide.size_l0[0] * slide.mpp_l0;
  const show = () => {
    if (!picture.isOpen()) return;
    const one = new OpenSeadragon.Point(1, 0);
    const umPerPx = width_um / picture.viewport.deltaPixelsFromPoints(one, true).x;
    const um = roundBelow(umPerPx * BAR_PX);
    byId("scale-bar").style.width = `${um / umPerPx}px`;
    const length = um >= 1000 ? `${um / 1000} mm` : `${um} \u00b5m`;
    byId("scale-text").textContent = `${length}  \u00b7  ${number(umPerPx)} \u00b5m per pixel`;
  };
  for (const event of ["update-viewport", "open", "resize"]) picture.addHandler(event, show);
}

/** Return the largest of 1, 2, 5, 10, 20, ... that is not larger. */
function roundBelow(length) {
  const power = 10 ** Math.floor(Math.log10(length));
  return Number(([5, 2, 1].find((factor) => factor * power <= length) * power).toPrecision(1));
}
