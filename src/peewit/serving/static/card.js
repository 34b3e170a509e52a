// One picture with its predictions.

import { errorText, percent, text } from "./strings.js";

const TOP_CLASSES = 5;
const PREVIEW_SIZE = 480; // pixels of the longer side
// the colour map of the heat maps in reports, from low to high
const COLOUR_MAP = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
const MAX_OPACITY = 0.75;

function element(name, className, content) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (content !== undefined) node.textContent = content;
  return node;
}

export class Card {
  constructor(file) {
    this.file = file;
    this.prediction = null;
    this.failure = null;
    this.bitmap = null;
    this.loaded = false;
    this.element = element("li", "card");
    this.view = element("div", "view", text("working"));
    this.body = element("div", "body");
    this.element.append(this.view, this.body);
    this.render();
  }

  async load() {
    try {
      this.bitmap = await preview(this.file);
    } catch {
      // a format that only the server supports, or not a picture
      this.bitmap = null;
    }
    this.loaded = true;
    this.render();
  }

  show(prediction) {
    if (prediction.error) this.failure = { message: prediction.error, status: prediction.status };
    else this.prediction = prediction;
    this.render();
  }

  fail(message, status) {
    this.failure = { message, status };
    this.render();
  }

  // The text for screen readers.
  announcement() {
    const name = this.file.name;
    if (this.failure) return text("failed", { name, error: this.errorText() });
    const [first] = this.prediction.labels;
    if (this.prediction.rejected) return text("announcement-none", { name });
    return text("announcement", { name, label: first.class, share: percent(first.probability) });
  }

  errorText() {
    return errorText(this.failure.message, this.failure.status);
  }

  render() {
    this.renderView();
    const parts = [];
    if (this.failure) {
      parts.push(element("h3", "", text("not-read")), element("p", "muted file", this.file.name));
      parts.push(element("p", "", this.errorText()));
    } else if (this.prediction) {
      const labels = this.prediction.labels;
      const answer = this.prediction.rejected ? text("none") : labels[0].class;
      parts.push(element("h3", "", answer), element("p", "muted file", this.file.name));
      parts.push(this.bars(labels.slice(0, TOP_CLASSES)));
      if (labels.length > TOP_CLASSES) {
        const more = element("details");
        more.open = this.body.querySelector("details")?.open ?? false;
        more.append(element("summary", "", text("all-classes", { count: labels.length })));
        more.append(this.bars(labels.slice(TOP_CLASSES)));
        parts.push(more);
      }
    } else {
      parts.push(element("h3", "", text("working")), element("p", "muted file", this.file.name));
    }
    this.element.classList.toggle("failed", Boolean(this.failure));
    this.element.setAttribute("aria-busy", String(!this.failure && !this.prediction));
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

  renderView() {
    this.view.hidden = Boolean(this.failure && this.loaded && !this.bitmap);
    if (!this.bitmap) {
      this.view.textContent = this.loaded ? text("no-preview") : "";
      return;
    }
    const name = this.file.name;
    const heat = document.getElementById("heat").checked;
    const map = heat && this.prediction?.heat_map;
    const { width, heat_map_part: part } = this.prediction ?? {};
    const canvases = [this.canvas(name)];
    if (map) {
      const label = this.prediction.labels[0].class;
      canvases.push(this.canvas(text("heat-of", { name, label }), map, part, width));
    }
    this.view.replaceChildren(...canvases);
  }

  // part: what the heat map covers of the picture as sent, which was sentWidth pixels wide
  canvas(label, map = null, part = null, sentWidth = 0) {
    const { width, height } = this.bitmap;
    const scale = Math.min(PREVIEW_SIZE / width, PREVIEW_SIZE / height);
    const canvas = element("canvas");
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", label);
    const context = canvas.getContext("2d");
    // show the pixels of a tiny picture as the network sees them, without smoothing
    context.imageSmoothingEnabled = scale < 1;
    if (map) context.filter = "grayscale(1)";
    context.drawImage(this.bitmap, 0, 0, canvas.width, canvas.height);
    if (map) {
      context.filter = "none";
      context.imageSmoothingEnabled = true;
      context.imageSmoothingQuality = "high";
      const unit = canvas.width / sentWidth;
      const area = [part.left, part.top, part.width, part.height].map((side) => side * unit);
      context.drawImage(coloured(map), ...area);
    }
    return canvas;
  }
}

// Keep only a preview: the bitmap of a photograph of 12 megapixels takes 48 MB of memory.
async function preview(file) {
  const whole = await createImageBitmap(file);
  const scale = PREVIEW_SIZE / Math.max(whole.width, whole.height);
  if (scale >= 1) return whole;
  const size = (side) => Math.max(1, Math.round(side * scale));
  const options = { resizeWidth: size(whole.width), resizeHeight: size(whole.height), resizeQuality: "high" };
  const resized = await createImageBitmap(whole, options);
  whole.close();
  return resized;
}

function coloured(map) {
  const canvas = element("canvas");
  canvas.width = map[0].length;
  canvas.height = map.length;
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  map.flat().forEach((value, index) => {
    const position = value * (COLOUR_MAP.length - 1);
    const low = Math.min(COLOUR_MAP.length - 2, Math.floor(position));
    for (let channel = 0; channel < 3; channel += 1) {
      const [from, to] = [COLOUR_MAP[low][channel], COLOUR_MAP[low + 1][channel]];
      image.data[index * 4 + channel] = from + (to - from) * (position - low);
    }
    image.data[index * 4 + 3] = 255 * MAX_OPACITY * value;
  });
  context.putImageData(image, 0, 0);
  return canvas;
}
