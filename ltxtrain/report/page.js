"use strict";
document.documentElement.classList.add("scripted");

/* Gallery: the slider chooses which step stands beside the base model. Without this script all steps stand there. */
for (const gallery of document.querySelectorAll(".gallery")) {
  const controls = gallery.querySelector(".controls");
  if (!controls) continue;
  const steps = controls.dataset.steps.split(" ");
  const slider = controls.querySelector("input");
  const shown = controls.querySelector("output");
  const play = controls.querySelector(".play");
  let playing = false;

  const visible = () => [...gallery.querySelectorAll("video")].filter((video) => video.offsetParent !== null);
  const start = (video, at) => {
    if (video.readyState > 0) video.currentTime = at;
    else video.addEventListener("loadedmetadata", () => { video.currentTime = at; }, { once: true });
    video.play().catch(() => {});
  };
  const show = (index) => {
    const first = visible()[0];
    const at = first ? first.currentTime : 0;
    for (const group of gallery.querySelectorAll(".trained")) {
      const figures = [...group.children];
      /* A prompt that was not rendered at this step shows the last step before it, else its first. */
      const before = figures.filter((figure) => Number(figure.dataset.step) <= Number(steps[index]));
      const chosen = before.length ? before[before.length - 1] : figures[0];
      for (const figure of figures) {
        figure.classList.toggle("shown", figure === chosen);
        const video = figure.querySelector("video");
        if (video && figure !== chosen) video.pause();
      }
    }
    if (shown) shown.textContent = steps[index];
    if (slider) slider.setAttribute("aria-valuetext", "step " + steps[index]);
    if (playing) visible().forEach((video) => start(video, at));
  };

  /* The controls of the browser darken a small video: they come with the pointer or the focus. */
  for (const video of gallery.querySelectorAll("video")) {
    video.controls = false;
    video.tabIndex = 0;
    for (const kind of ["pointerenter", "focus"]) video.addEventListener(kind, () => { video.controls = true; });
    for (const kind of ["pointerleave", "blur"]) video.addEventListener(kind, () => { video.controls = false; });
  }

  if (slider) slider.addEventListener("input", () => show(Number(slider.value)));
  play.addEventListener("click", () => {
    playing = !playing;
    play.textContent = playing ? "Pause" : "Play together";
    visible().forEach((video) => { if (playing) start(video, 0); else video.pause(); });
  });
  show(steps.length - 1);
}

/* Curves: values are read back out of the drawn paths. */
const format = (value) => {
  const size = Math.abs(value);
  if (size !== 0 && size < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e");
  return String(Number(value.toPrecision(4)));
};
for (const svg of document.querySelectorAll(".plot svg")) {
  const [xLow, xHigh] = svg.dataset.x.split(" ").map(Number);
  const [yLow, yHigh] = svg.dataset.y.split(" ").map(Number);
  const readout = svg.closest("figure").querySelector(".readout");
  const cursor = svg.querySelector(".cursor");
  const lines = [...svg.querySelectorAll(".line")].map((path) => ({
    name: path.dataset.name,
    points: path.getAttribute("d").slice(1).split("L").map((pair) => pair.split(" ").map(Number)),
  }));
  const longest = lines.reduce((a, b) => (b.points.length > a.points.length ? b : a));
  let at = longest.points.length - 1;

  const nearest = (points, x) => {
    let low = 0, high = points.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle][0] <= x) low = middle; else high = middle;
    }
    return Math.abs(points[low][0] - x) <= Math.abs(points[high][0] - x) ? low : high;
  };
  const tell = () => {
    const x = longest.points[at][0];
    cursor.setAttribute("d", "M" + x + " 0V1000");
    const step = Math.round(xLow + (x / 1000) * (xHigh - xLow));
    const values = lines.map((line) => {
      const y = line.points[nearest(line.points, x)][1];
      return line.name + " " + format(yHigh - (y / 1000) * (yHigh - yLow));
    });
    readout.textContent = "Step " + step.toLocaleString("en") + ": " + values.join(", ");
  };
  const clear = () => { readout.textContent = ""; cursor.setAttribute("d", ""); };

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    at = nearest(longest.points, ((event.clientX - box.left) / box.width) * 1000);
    tell();
  });
  svg.addEventListener("pointerleave", clear);
  svg.addEventListener("focus", tell);
  svg.addEventListener("blur", clear);
  svg.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: longest.points.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    at = Math.max(0, Math.min(longest.points.length - 1, moves[event.key]));
    tell();
  });
}

/* Configuration: a filter over both tables; the folded one opens while a word stands in the field. */
const filter = document.getElementById("filter");
if (filter) {
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of document.querySelectorAll(".settings tbody tr")) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const folded = document.querySelector("#configuration details");
    if (folded && words.length) folded.open = true;
  });
}
