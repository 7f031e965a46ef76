"use strict";

/** Show the prediction for the slide, and its patient's place among the held-out patients of the run. */
function showPatient(cohort, slide) {
  const place = byId("patient");
  if (!cohort) return place.replaceChildren(...ofExplanation(slide.explanation));
  if (cohort.task === "survival") return place.replaceChildren(...ofSurvival(cohort, slide.patient));
  return place.replaceChildren(...ofSubtype(slide.patient));
}

const ABSENT = "No fold of this run held this slide's patient out, so there is no unbiased prediction to show.";

function ofSurvival(cohort, patient) {
  const facts = patient
    ? [
        element("p", { class: "big" }, `${patient.high ? "High" : "Low"} risk`),
        element("p", { class: "muted" }, `Patient ${patient.patient_id}: risk ${number(patient.risk)}, higher than ${percent(patient.place)} ` +
          `of the held-out patients of fold ${patient.folds[0]}. ${patient.event ? "Event" : "No event"} at ${number(patient.time)} ${cohort.time_unit}.`),
      ]
    : [element("p", { class: "muted" }, ABSENT)];
  const keys = cohort.curves.map((curve) => {
    const key = element("span", {}, `\u25ac ${curve.label} (n = ${curve.n})  `);
    key.style.color = COLOURS[curve.label];
    return key;
  });
  const how = `Held-out patients above and below the median risk of their fold, 95 % bands.${patient ? " Circle: this patient, filled if the event was observed." : ""}`;
  return [...facts, survivalPlot(cohort, patient), riskStrip(cohort, patient), element("p", { class: "note" }, ...keys, element("br"), how)];
}

function ofSubtype(patient) {
  if (!patient) return [element("p", { class: "muted" }, ABSENT)];
  const about = `Patient ${patient.patient_id}, held out in fold ${patient.folds.join(", ")}; labelled ${patient.label}.`;
  return [...headline(patient.probabilities), element("p", { class: "muted" }, about), bars(patient.probabilities)];
}

function ofExplanation(explanation) {
  const hint = element("p", { class: "muted" }, "To see patients' predictions, open a run: ", element("code", {}, "longvit view RUN"));
  if (!explanation) return [hint];
  const entries = Object.entries(explanation.prediction);
  const model = element("p", { class: "muted" }, "Model ", element("code", {}, explanation.model));
  if (entries.length > 1) {
    const probabilities = Object.fromEntries(entries.map(([column, share]) => [column.replace(/^p_/, ""), share]));
    return [...headline(probabilities), model, bars(probabilities)];
  }
  return [element("p", { class: "big" }, `${entries[0][0]} ${number(entries[0][1])}`), model, hint];
}

function headline(probabilities) {
  const [name, most] = Object.entries(probabilities).reduce((a, b) => (b[1] > a[1] ? b : a));
  return [element("p", { class: "big" }, `${name}, P = ${most.toFixed(2)}`)];
}

function bars(probabilities) {
  const most = Math.max(...Object.values(probabilities));
  const chart = element("div", { class: "bars" });
  for (const [name, share] of Object.entries(probabilities)) {
    const bar = element("div", { class: share === most ? "bar most" : "bar" }, element("i"));
    bar.firstChild.style.width = `${share * 100}%`;
    chart.append(element("span", {}, name), bar, element("span", {}, share.toFixed(2)));
  }
  return chart;
}
