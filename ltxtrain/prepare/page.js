"use strict";
document.documentElement.classList.add("scripted");

/* One filter for the cards and the table: a verdict or a finding, and words out of name and caption. */
const field = document.getElementById("words");
const buttons = [...document.querySelectorAll("[data-tag]")];
const entries = [...document.querySelectorAll("[data-tags]")].map((node) => ({
  node, card: node.classList.contains("card"), tags: node.dataset.tags.split(" "), text: "",
}));
const told = document.querySelector(".filter output");
let chosen = "";

const apply = () => {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let cards = 0, shown = 0;
  for (const entry of entries) {
    if (words.length && !entry.text) entry.text = entry.node.textContent.toLowerCase();
    const fits = (!chosen || entry.tags.includes(chosen)) && words.every((word) => entry.text.includes(word));
    entry.node.hidden = !fits;
    if (entry.card) { cards += 1; shown += fits; }
  }
  told.textContent = chosen || words.length ? shown.toLocaleString("en") + " of " + cards.toLocaleString("en") + " cards" : "";
};
const choose = (tag) => {
  chosen = tag;
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.tag === tag));
  apply();
};
for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.tag === chosen ? "" : button.dataset.tag));
for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => {
    choose(button.dataset.show);
    document.getElementById("clips").scrollIntoView();
  });
}
field.addEventListener("input", apply);
