"use strict";

const COLOURS = { "low risk": "var(--low)", "high risk": "var(--high)" };
const PLOT = { left: 30, top: 8, width: 246, height: 128 };

/** Draw Kaplan-Meier curves of held-out patients by predicted risk, with the patient's follow-up on one curve. */
function survivalPlot(cohort, patient) {
  const last = Math.max(...cohort.curves.flatMap((curve) => curve.time), 1);
  const x = (time) => PLOT.left + (time / last) * PLOT.width;
  const y = (share) => PLOT.top + (1 - share) * PLOT.height;
  const plot = drawn("svg", { viewBox: "0 0 284 178", role: "img" }, drawn("title", {}, describe(cohort, patient)));
  axes(plot, cohort.time_unit, last, x, y);
  for (const curve of cohort.curves) {
    const colour = COLOURS[curve.label];
    plot.append(drawn("path", { d: band(curve, x, y), fill: colour, opacity: 0.14 }));
    plot.append(drawn("path", { d: steps(curve.time, curve.share, x, y), fill: "none", stroke: colour, "stroke-width": 2 }));
    for (const time of curve.censored) {
      const at = y(shareAt(curve, time));
      plot.append(drawn("path", { d: `M${x(time)} ${at - 4}V${at + 4}`, stroke: colour }));
    }
  }
  if (patient) mark(plot, cohort, patient, x, y);
  return plot;
}

function axes(plot, unit, last, x, y) {
  for (const share of [0, 0.5, 1]) {
    plot.append(drawn("path", { d: `M${PLOT.left} ${y(share)}H${PLOT.left + PLOT.width}`, stroke: "var(--hair)" }));
    plot.append(drawn("text", { x: PLOT.left - 5, y: y(share) + 4, "text-anchor": "end", class: "soft" }, `${share * 100}`));
  }
  const step = roundBelow(last / 3);
  for (let time = 0; time <= last; time += step) {
    plot.append(drawn("text", { x: x(time), y: y(0) + 15, "text-anchor": "middle", class: "soft" }, String(time)));
  }
  plot.append(drawn("text", { x: PLOT.left + PLOT.width / 2, y: y(0) + 31, "text-anchor": "middle", class: "soft" }, `${unit}; % without event`));
}

/** Mark the patient's event or last visit on the curve of the patient's group. */
function mark(plot, cohort, patient, x, y) {
  const curve = cohort.curves.find((one) => one.label === (patient.high ? "high risk" : "low risk"));
  const [cx, cy] = [x(patient.time), y(shareAt(curve, patient.time))];
  plot.append(drawn("path", { d: `M${cx} ${PLOT.top}V${y(0)}`, stroke: "var(--ink)", "stroke-dasharray": "2 3" }));
  plot.append(drawn("circle", { cx, cy, r: 5, fill: patient.event ? "var(--ink)" : "#fff", stroke: "var(--ink)", "stroke-width": 2 }));
}

/** Draw every held-out patient's place among the risks of the fold, and mark this patient's. */
function riskStrip(cohort, patient) {
  const x = (place) => PLOT.left + place * PLOT.width;
  const strip = drawn("svg", { viewBox: "0 0 284 46", role: "img" }, drawn("title", {}, "Predicted risk among the held-out patients of the fold, lowest to the left"));
  for (const place of cohort.places) {
    strip.append(drawn("path", { d: `M${x(place)} 9v10`, stroke: place > 0.5 ? "var(--high)" : "var(--low)", opacity: 0.55 }));
  }
  if (patient) strip.append(drawn("path", { d: `M${x(patient.place)} 21l6 9h-12zM${x(patient.place)} 4v17`, fill: "var(--ink)", stroke: "var(--ink)", "stroke-width": 2 }));
  const words = [["low", "start", 0], ["predicted risk", "middle", 0.5], ["high", "end", 1]];
  for (const [text, anchor, place] of words) strip.append(drawn("text", { x: x(place), y: 43, "text-anchor": anchor, class: "soft" }, text));
  return strip;
}

function describe(cohort, patient) {
  const groups = cohort.curves.map((curve) => `${curve.label}, ${curve.n} patients`).join("; ");
  return `Kaplan-Meier curves of held-out patients: ${groups}.` + (patient ? ` The patient is in the group of ${patient.high ? "high" : "low"} risk.` : "");
}

function shareAt(curve, time) {
  return curve.share[Math.max(0, curve.time.findLastIndex((step) => step <= time))];
}

function steps(times, shares, x, y) {
  return times.map((time, i) => (i ? `H${x(time)}V${y(shares[i])}` : `M${x(time)} ${y(shares[0])}`)).join("");
}

function band(curve, x, y) {
  const back = [...curve.time.keys()].reverse().map((i) => `${i === curve.time.length - 1 ? `L${x(curve.time[i])} ${y(curve.low[i])}` : `V${y(curve.low[i])}H${x(curve.time[i])}`}`);
  return `${steps(curve.time, curve.high, x, y)}${back.join("")}Z`;
}
