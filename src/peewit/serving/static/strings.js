// The page's sentences in the reader's language: chosen by hand, or as the browser prefers.

const LANGUAGES = ["en", "zh"];
const KEPT = "peewit-language";
let strings = {};
let language = "en";

export function preferred() {
  let kept = null;
  try {
    kept = localStorage.getItem(KEPT);
  } catch {
    // storage can be forbidden; the browser's preference serves then
  }
  const wanted = [kept, ...(navigator.languages || [navigator.language])];
  for (const tag of wanted) {
    const found = LANGUAGES.find((name) => tag && tag.toLowerCase().split("-")[0] === name);
    if (found) return found;
  }
  return "en";
}

export async function use(name, keep = false) {
  const answer = await fetch(`/static/strings.${name}.json`);
  strings = await answer.json();
  language = name;
  if (keep) {
    try {
      localStorage.setItem(KEPT, name);
    } catch {
      // then it is asked again next time
    }
  }
  document.documentElement.lang = name === "zh" ? "zh-CN" : name;
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = text(element.dataset.text);
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", text(element.dataset.label));
  }
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === name));
  }
}

export function text(key, values = {}) {
  return (strings[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

// What a failed picture says: the server's own sentence in English, one by its status elsewhere.
export function failure(sentence, status) {
  return strings[`error-${status}`] ?? sentence;
}

export function number(value) {
  return new Intl.NumberFormat(language).format(value);
}

export function percent(value, digits = 1) {
  return new Intl.NumberFormat(language, {
    style: "percent",
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  }).format(value);
}
