// The page: takes pictures in every way a browser knows, and shows what comes back.

import * as camera from "./camera.js";
import { Card } from "./card.js";
import * as server from "./server.js";
import { number, percent, preferred, text, use } from "./strings.js";

const MOST_CARDS = 200;
const AT_A_TIME = 8;
const find = (id) => document.getElementById(id);
let cards = [];
let leftOut = 0;
let described = null;
// one group after the other, so that a thousand pictures do not ask all at once; nor are they all
// decoded at once
let queue = Promise.resolve();
let loading = Promise.resolve();

function showModel() {
  if (!described) return;
  find("run").textContent = text("run", described);
  const facts = described.accuracy;
  const words = facts && {
    images: number(facts.images),
    data: facts.data ?? text("data-unknown"),
    share: percent(facts.share),
    low: percent(facts.low),
    high: percent(facts.high),
  };
  const kind = facts ? (facts.split === "test" ? "test" : "validation") : "none";
  find("accuracy").textContent = text(`accuracy-${kind}`, words ?? {});
  const names = described.classes;
  const some = names.slice(0, 12).join(", ") + (names.length > 12 ? ", …" : "");
  find("classes").textContent = text("classes", { count: number(names.length), names: some });
  find("honest").hidden = false;
}

function away(gone) {
  find("gone").hidden = !gone;
  find("gone").textContent = gone ? text("gone") : "";
  if (!gone) find("status").textContent = text("back");
}

function showLeftOut() {
  find("most").hidden = !leftOut;
  find("most").textContent = text("most", { count: number(MOST_CARDS), more: number(leftOut) });
}

function add(files) {
  const added = files.slice(0, MOST_CARDS).map((file) => new Card(file));
  if (!added.length) return;
  find("results").hidden = false;
  find("cards").prepend(...added.map((card) => card.element));
  cards = [...added, ...cards];
  const over = cards.splice(MOST_CARDS);
  over.forEach((card) => card.element.remove());
  leftOut += over.length + files.length - added.length;
  showLeftOut();
  for (const card of added) {
    loading = loading.then(() => cards.includes(card) && card.load()).catch(() => {});
  }
  queue = queue.then(() => ask(added));
}

async function ask(added) {
  await ready;
  const { bytes, pictures } = described.limits;
  const fitting = added.filter((card) => card.file.size + 1000 <= bytes);
  for (const card of added.filter((other) => !fitting.includes(other))) {
    card.fail(text("error-size", { limit: number(bytes / 1e6) }), 0);
  }
  for (const group of server.groups(fitting, Math.min(pictures, AT_A_TIME), bytes)) {
    try {
      const answers = await server.predict(group.map((card) => card.file), away);
      group.forEach((card, index) => card.answer(answers[index]));
    } catch (error) {
      // all of them failed; alone, each gets its own sentence
      if (group.length > 1) await Promise.all(group.map((card) => ask([card])));
      else group[0].fail(error.message, error.status);
    }
    find("status").textContent = group.map((card) => card.spoken()).join(text("between"));
  }
}

async function language(name, keep) {
  await use(name, keep);
  showModel();
  showLeftOut();
  if (!find("gone").hidden) find("gone").textContent = text("gone");
  cards.forEach((card) => card.render());
}

async function begin() {
  await language(preferred(), false);
  for (;;) {
    try {
      described = await server.model();
      break;
    } catch {
      away(true);
      await server.back();
      away(false);
    }
  }
  showModel();
}

function listen() {
  find("files").addEventListener("change", (event) => {
    add([...event.target.files]);
    event.target.value = "";
  });
  // anywhere on the page: a file that misses the frame must not replace the page
  addEventListener("dragover", (event) => {
    event.preventDefault();
    find("take").classList.add("over");
  });
  addEventListener("dragleave", () => find("take").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    find("take").classList.remove("over");
    add([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    add(files.map((file) => (file.name ? file : new File([file], text("pasted"), { type: file.type }))));
  });
  find("heat").addEventListener("change", (event) => {
    find("scale").hidden = !event.target.checked;
    cards.forEach((card) => card.render());
  });
  find("clear").addEventListener("click", () => {
    cards.forEach((card) => card.element.remove());
    cards = [];
    leftOut = 0;
    find("results").hidden = true;
    find("files").focus();
  });
  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => language(button.dataset.language, true));
  }
  camera.setUp((file) => add([file]));
}

listen();
const ready = begin();
