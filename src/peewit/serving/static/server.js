// Requests to the server. They are retried while it is busy or offline.

const RETRY_AFTER = 1500; // milliseconds
// room for the form's own bytes, per file
export const FORM_BYTES = 1000;

export class RequestError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

export async function model() {
  const response = await fetch("/api/model");
  if (!response.ok) throw new RequestError("", response.status);
  return response.json();
}

// The predictions for some files. Waits while the server is offline, and calls `onOffline(true)` and
// `onOffline(false)`.
export async function predict(files, onOffline) {
  const form = new FormData();
  for (const file of files) form.append("pictures", file, file.name);
  for (;;) {
    let response;
    try {
      response = await fetch("/api/predict?heat_map=true", { method: "POST", body: form });
    } catch {
      // fetch also fails for a folder and for a file that no longer exists
      if (!(await Promise.all(files.map(readable))).every(Boolean)) throw new RequestError("", "unreadable");
      onOffline(true);
      await waitUntilOnline();
      onOffline(false);
      continue;
    }
    if (response.status === 429) {
      await pause(RETRY_AFTER);
      continue;
    }
    const content = await response.json();
    if (!response.ok) throw new RequestError(content.error, response.status);
    return content.predictions;
  }
}

const readable = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

export async function waitUntilOnline() {
  for (;;) {
    await pause(RETRY_AFTER);
    try {
      if ((await fetch("/healthz", { cache: "no-store" })).ok) return;
    } catch {
      // still offline
    }
  }
}

// Groups of files within the server's limits: at most `pictures` files and `bytes` bytes.
export function* groups(entries, pictures, bytes) {
  let group = [];
  let size = 0;
  for (const entry of entries) {
    const more = entry.file.size + FORM_BYTES;
    if (group.length && (group.length === pictures || size + more > bytes)) {
      yield group;
      group = [];
      size = 0;
    }
    group.push(entry);
    size += more;
  }
  if (group.length) yield group;
}
