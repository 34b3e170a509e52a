// One picture and what is said of it.

import { failure, percent, text } from "./strings.js";

const SHOWN = 5;
const SIDE = 480;
// the colours of the heat maps in reports, from cold to hot
const RAMP = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
const STRENGTH = 0.75;

function element(name, className, content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (content !== undefined) made.textContent = content;
  return made;
}

export class Card {
  constructor(file) {
    this.file = file;
    this.prediction = null;
    this.failed = null;
    this.bitmap = null;
    this.seen = false;
    this.element = element("li", "card");
    this.view = element("div", "view", text("working"));
    this.body = element("div", "body");
    this.element.append(this.view, this.body);
    this.render();
  }

  async load() {
    try {
      this.bitmap = await small(this.file);
    } catch {
      // a kind that the server reads and the browser does not, or no picture at all
      this.bitmap = null;
    }
    this.seen = true;
    this.render();
  }

  answer(prediction) {
    if (prediction.error) this.failed = { sentence: prediction.error, status: prediction.status };
    else this.prediction = prediction;
    this.render();
  }

  fail(sentence, status) {
    this.failed = { sentence, status };
    this.render();
  }

  // One sentence for those who hear the page.
  spoken() {
    const name = this.file.name;
    if (this.failed) return text("failed", { name, error: this.sentence() });
    const [first] = this.prediction.labels;
    return text("said", { name, label: first.class, share: percent(first.probability) });
  }

  sentence() {
    return failure(this.failed.sentence, this.failed.status);
  }

  render(heat = document.getElementById("heat").checked) {
    this.renderView(heat);
    const parts = [];
    if (this.failed) {
      parts.push(element("h3", "", text("not-read")), element("p", "quiet file", this.file.name));
      parts.push(element("p", "", this.sentence()));
    } else if (this.prediction) {
      const labels = this.prediction.labels;
      parts.push(element("h3", "", labels[0].class), element("p", "quiet file", this.file.name));
      parts.push(this.bars(labels.slice(0, SHOWN)));
      if (labels.length > SHOWN) {
        const more = element("details");
        more.open = this.body.querySelector("details")?.open ?? false;
        more.append(element("summary", "", text("all-classes", { count: labels.length })));
        more.append(this.bars(labels.slice(SHOWN)));
        parts.push(more);
      }
    } else {
      parts.push(element("h3", "", text("working")), element("p", "quiet file", this.file.name));
    }
    this.element.classList.toggle("failed", Boolean(this.failed));
    this.element.setAttribute("aria-busy", String(!this.failed && !this.prediction));
    this.body.replaceChildren(...parts);
  }

  bars(labels) {
    const list = element("ol");
    for (const { class: name, probability } of labels) {
      const row = element("li");
      const fill = element("span", "fill");
      fill.style.width = `${probability * 100}%`;
      fill.setAttribute("aria-hidden", "true");
      row.append(fill, element("span", "", name), element("span", "share", percent(probability)));
      list.append(row);
    }
    return list;
  }

  renderView(heat) {
    this.view.hidden = Boolean(this.failed && this.seen && !this.bitmap);
    if (!this.bitmap) {
      this.view.textContent = this.seen ? text("no-preview") : "";
      return;
    }
    const name = this.file.name;
    const map = heat && this.prediction?.heat_map;
    const canvases = [this.canvas(null, name)];
    if (map) {
      const label = this.prediction.labels[0].class;
      canvases.push(this.canvas(map, text("heat-of", { name, label })));
    }
    this.view.replaceChildren(...canvases);
  }

  canvas(map, label) {
    const { width, height } = this.bitmap;
    const scale = Math.min(SIDE / width, SIDE / height);
    const canvas = element("canvas");
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", label);
    const brush = canvas.getContext("2d");
    // the pixels of a tiny picture are what the network sees: shown as they are, not smeared
    brush.imageSmoothingEnabled = scale < 1;
    if (map) brush.filter = "grayscale(1)";
    brush.drawImage(this.bitmap, 0, 0, canvas.width, canvas.height);
    if (map) {
      brush.filter = "none";
      brush.imageSmoothingEnabled = true;
      brush.imageSmoothingQuality = "high";
      brush.drawImage(painted(map), 0, 0, canvas.width, canvas.height);
    }
    return canvas;
  }
}

// The picture, no larger than it is shown: a photograph of 12 megapixels takes 48 MB of memory.
async function small(file) {
  const whole = await createImageBitmap(file);
  const scale = SIDE / Math.max(whole.width, whole.height);
  if (scale >= 1) return whole;
  const size = (side) => Math.max(1, Math.round(side * scale));
  const options = { resizeWidth: size(whole.width), resizeHeight: size(whole.height), resizeQuality: "high" };
  const shown = await createImageBitmap(whole, options);
  whole.close();
  return shown;
}

// The network reads every picture whole, so its map lies over the whole picture.
function painted(map) {
  const canvas = element("canvas");
  canvas.width = map[0].length;
  canvas.height = map.length;
  const brush = canvas.getContext("2d");
  const image = brush.createImageData(canvas.width, canvas.height);
  map.flat().forEach((value, index) => {
    const place = value * (RAMP.length - 1);
    const low = Math.min(RAMP.length - 2, Math.floor(place));
    for (let channel = 0; channel < 3; channel += 1) {
      const [from, to] = [RAMP[low][channel], RAMP[low + 1][channel]];
      image.data[index * 4 + channel] = from + (to - from) * (place - low);
    }
    image.data[index * 4 + 3] = 255 * STRENGTH * value;
  });
  brush.putImageData(image, 0, 0);
  return canvas;
}
