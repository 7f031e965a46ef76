"use strict";

/** Show the list of slides; a single slide needs no list. */
function listSlides(index, open) {
  byId("slides").hidden = index.slides.length < 2;
  byId("title").textContent = index.title;
  const items = index.slides.map((slide, number) => {
    const about = [slide.patient ? inShort(slide.patient) : "", slide.explained ? "heatmap" : ""].filter(Boolean).join(" \u00b7 ");
    const picture = element("img", { src: LongViT.picture(`data/${number}/thumbnail.jpg`), alt: "", loading: "lazy" });
    const button = element("button", { type: "button" }, picture, element("span", {}, slide.slide_id, element("small", {}, about)));
    button.addEventListener("click", () => open(number));
    return element("li", {}, button);
  });
  byId("slide-list").replaceChildren(...items);
  byId("find").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    index.slides.forEach((slide, number) => {
      const text = `${slide.slide_id} ${slide.patient?.patient_id ?? ""}`.toLowerCase();
      items[number].hidden = !text.includes(wanted);
    });
  });
}

/** Mark the open slide, and scroll to its entry. */
function markSlide(number) {
  const buttons = document.querySelectorAll("#slide-list button");
  buttons.forEach((button, i) => button.setAttribute("aria-current", i === number));
  const [list, item] = [byId("slide-list").getBoundingClientRect(), buttons[number].getBoundingClientRect()];
  if (item.top < list.top || item.bottom > list.bottom) byId("slide-list").scrollTop += item.top - list.top - list.height / 3;
}

function inShort(patient) {
  if ("risk" in patient) return `${patient.high ? "high" : "low"} risk`;
  const [name, most] = Object.entries(patient.probabilities).reduce((a, b) => (b[1] > a[1] ? b : a));
  return `${name} ${most.toFixed(2)}`;
}
