// The page: collects pictures, sends them to the server, and shows the predictions.

import * as camera from "./camera.js";
import { Card } from "./card.js";
import * as server from "./server.js";
import { load, number, percent, preferred, text } from "./strings.js";

const MAX_CARDS = 200;
const GROUP_SIZE = 8;
const MAX_NAMES = 12;
const find = (id) => document.getElementById(id);
let cards = [];
let omitted = 0;
let model = null;
// Groups are sent, and previews decoded, one after the other, even if the user drops a thousand
// pictures at once.
let queue = Promise.resolve();
let loading = Promise.resolve();

function showModel() {
  if (!model) return;
  find("run").textContent = text("run", model);
  const accuracy = model.accuracy;
  const values = accuracy && {
    images: number(accuracy.images),
    data: accuracy.data ? text("data-known", { data: accuracy.data }) : text("data-unknown"),
    share: percent(accuracy.share),
    low: percent(accuracy.low),
    high: percent(accuracy.high),
  };
  const kind = accuracy ? (accuracy.split === "test" ? "test" : "validation") : "none";
  find("accuracy").textContent = text(`accuracy-${kind}`, values ?? {});
  const names = model.classes;
  const shown = names.slice(0, MAX_NAMES).concat(names.length > MAX_NAMES ? "…" : []).join(text("comma"));
  find("classes").textContent = text("classes", { count: number(names.length), names: shown });
  find("model").hidden = false;
}

function showOffline(offline) {
  find("offline").hidden = !offline;
  find("offline").textContent = offline ? text("offline") : "";
  if (!offline) find("status").textContent = text("online");
}

function showOmitted() {
  find("most").hidden = !omitted;
  find("most").textContent = text("most", { count: number(MAX_CARDS), more: number(omitted) });
}

function add(files) {
  const added = files.slice(0, MAX_CARDS).map((file) => new Card(file));
  if (!added.length) return;
  find("results").hidden = false;
  find("cards").prepend(...added.map((card) => card.element));
  cards = [...added, ...cards];
  const over = cards.splice(MAX_CARDS);
  over.forEach((card) => card.element.remove());
  omitted += over.length + files.length - added.length;
  showOmitted();
  for (const card of added) {
    loading = loading.then(() => cards.includes(card) && card.load()).catch(() => {});
  }
  queue = queue.then(() => ask(added));
}

async function ask(added) {
  await ready;
  const { bytes, pictures } = model.limits;
  const fitting = added.filter((card) => card.file.size + server.FORM_BYTES <= bytes);
  for (const card of added.filter((other) => !fitting.includes(other))) {
    card.fail(text("error-size", { limit: number(bytes / 1e6) }), 0);
  }
  for (const group of server.groups(fitting, Math.min(pictures, GROUP_SIZE), bytes)) {
    try {
      const predictions = await server.predict(group.map((card) => card.file), showOffline);
      group.forEach((card, index) => card.show(predictions[index]));
    } catch (error) {
      // the whole group failed: sent alone, each picture gets its own error
      if (group.length > 1) await Promise.all(group.map((card) => ask([card])));
      else group[0].fail(error.message, error.status);
    }
    find("status").textContent = group.map((card) => card.announcement()).join(text("semicolon"));
  }
}

async function setLanguage(name, remember) {
  await load(name, remember);
  showModel();
  showOmitted();
  if (!find("offline").hidden) find("offline").textContent = text("offline");
  cards.forEach((card) => card.render());
}

async function start() {
  await setLanguage(preferred(), false);
  for (;;) {
    try {
      model = await server.model();
      break;
    } catch {
      showOffline(true);
      await server.waitUntilOnline();
      showOffline(false);
    }
  }
  showModel();
}

function listen() {
  find("files").addEventListener("change", (event) => {
    add([...event.target.files]);
    event.target.value = "";
  });
  // on the whole page: otherwise the browser opens a file that is dropped beside the frame
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
    omitted = 0;
    find("results").hidden = true;
    find("files").focus();
  });
  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => setLanguage(button.dataset.language, true));
  }
  camera.setUp((file) => add([file]));
}

listen();
const ready = start();
