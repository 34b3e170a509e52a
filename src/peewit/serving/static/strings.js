// The page's texts, in the language that the user chose or the browser prefers.

const LANGUAGES = ["en", "zh"];
const STORAGE_KEY = "peewit-language";
let strings = {};
let language = "en";

export function preferred() {
  let chosen = null;
  try {
    chosen = localStorage.getItem(STORAGE_KEY);
  } catch {
    // storage may be disabled: use the browser's preference
  }
  const wanted = [chosen, ...(navigator.languages || [navigator.language])];
  for (const tag of wanted) {
    const found = LANGUAGES.find((name) => tag && tag.toLowerCase().split("-")[0] === name);
    if (found) return found;
  }
  return "en";
}

export async function load(name, remember = false) {
  const response = await fetch(`/static/strings.${name}.json`);
  strings = await response.json();
  language = name;
  if (remember) {
    try {
      localStorage.setItem(STORAGE_KEY, name);
    } catch {
      // the choice is not remembered
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

// The error of a picture: by its HTTP status if the language has a text for it, else the server's own
// message, which is in English.
export function errorText(message, status) {
  return strings[`error-${status}`] ?? message;
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
