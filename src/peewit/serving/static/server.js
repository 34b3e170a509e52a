// Talking to the server: in groups, again when it is busy, and on when it is back.

const TRY_AGAIN = 1500;

export class Failed extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

export async function model() {
  const answer = await fetch("/api/model");
  if (!answer.ok) throw new Failed("", answer.status);
  return answer.json();
}

// The predictions for some files; waits for a server that is away. `away(true|false)` hears of it.
export async function predict(files, away) {
  const form = new FormData();
  for (const file of files) form.append("pictures", file, file.name);
  for (;;) {
    let answer;
    try {
      answer = await fetch("/api/predict?heat_map=true", { method: "POST", body: form });
    } catch {
      // a folder, or a file that is no longer there, fails as an absent server does
      if (!(await Promise.all(files.map(readable))).every(Boolean)) throw new Failed("", "unreadable");
      away(true);
      await back();
      away(false);
      continue;
    }
    if (answer.status === 429) {
      await pause(TRY_AGAIN);
      continue;
    }
    const content = await answer.json();
    if (!answer.ok) throw new Failed(content.error, answer.status);
    return content.predictions;
  }
}

const readable = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

export async function back() {
  for (;;) {
    await pause(TRY_AGAIN);
    try {
      if ((await fetch("/healthz", { cache: "no-store" })).ok) return;
    } catch {
      // still away
    }
  }
}

// Files in groups that the server takes: `pictures` and `bytes` at most, with room for the form.
export function* groups(entries, pictures, bytes) {
  let group = [];
  let size = 0;
  for (const entry of entries) {
    const more = entry.file.size + 1000;
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
