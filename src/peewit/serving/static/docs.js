// The description of the API, readable without anything from elsewhere.

const EXAMPLES = {
  "/api/predict": [
    "curl -F pictures=@cat.jpg -F pictures=@dog.png 'ADDRESS/api/predict?top=3'",
    "curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' ADDRESS/api/predict",
  ],
};

function element(name, content, className) {
  const made = document.createElement(name);
  if (content !== undefined) made.textContent = content;
  if (className) made.className = className;
  return made;
}

// A schema as a reader writes it down: names and types, references followed.
function sketch(schema, all, depth = 0) {
  if (!schema) return "anything";
  if (schema.$ref) return sketch(all[schema.$ref.split("/").pop()], all, depth);
  if (schema.anyOf) return schema.anyOf.map((part) => sketch(part, all, depth)).join(" or ");
  if (schema.type === "array") return `[${sketch(schema.items, all, depth)}, ...]`;
  if (schema.properties) {
    const space = "  ".repeat(depth + 1);
    const rows = Object.entries(schema.properties).map(([name, part]) => {
      const note = part.description ? `  (${part.description})` : "";
      return `${space}"${name}": ${sketch(part, all, depth + 1)}${note}`;
    });
    return `{\n${rows.join("\n")}\n${"  ".repeat(depth)}}`;
  }
  return schema.format === "binary" ? "file" : (schema.type ?? "anything");
}

function pairs(rows) {
  const list = element("dl");
  for (const [name, content] of rows) list.append(element("dt", name), element("dd", content));
  return list;
}

function operation(path, method, facts, all) {
  const section = element("section");
  const title = element("h2");
  title.append(element("span", method.toUpperCase(), "method"), element("code", path));
  section.append(title, element("p", facts.summary), element("p", facts.description ?? "", "quiet"));
  if (facts.parameters?.length) {
    section.append(element("h3", "In the address"));
    section.append(pairs(facts.parameters.map((one) => [one.name, one.description ?? ""])));
  }
  if (facts.requestBody) {
    section.append(element("h3", "Body"));
    const kinds = Object.entries(facts.requestBody.content);
    section.append(pairs(kinds.map(([kind, { schema }]) => [kind, sketch(schema, all)])));
  }
  for (const line of EXAMPLES[path] ?? []) {
    section.append(element("pre", line.replace("ADDRESS", location.origin)));
  }
  section.append(element("h3", "Answers"));
  section.append(pairs(Object.entries(facts.responses).map(([status, one]) => [status, one.description])));
  const good = Object.values(facts.responses[200]?.content ?? {})[0];
  if (good) section.append(element("pre", sketch(good.schema, all)));
  return section;
}

const answer = await fetch("/openapi.json");
const description = await answer.json();
const all = description.components?.schemas ?? {};
for (const [path, methods] of Object.entries(description.paths)) {
  for (const [method, facts] of Object.entries(methods)) {
    document.getElementById("operations").append(operation(path, method, facts, all));
  }
}
