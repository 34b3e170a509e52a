// The API's documentation, rendered from openapi.json without any external scripts.

const EXAMPLES = {
  "/api/predict": [
    "curl -F pictures=@cat.jpg -F pictures=@dog.png 'SERVER/api/predict?top=3'",
    "curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' SERVER/api/predict",
  ],
};

function element(name, content, className) {
  const node = document.createElement(name);
  if (content !== undefined) node.textContent = content;
  if (className) node.className = className;
  return node;
}

// A schema in short: names and types, with references resolved.
function outline(schema, all, depth = 0) {
  if (!schema) return "anything";
  if (schema.$ref) return outline(all[schema.$ref.split("/").pop()], all, depth);
  if (schema.anyOf) return schema.anyOf.map((part) => outline(part, all, depth)).join(" or ");
  if (schema.type === "array") return `[${outline(schema.items, all, depth)}, ...]`;
  if (schema.properties) {
    const space = "  ".repeat(depth + 1);
    const rows = Object.entries(schema.properties).map(([name, part]) => {
      const note = part.description ? `  (${part.description})` : "";
      return `${space}"${name}": ${outline(part, all, depth + 1)}${note}`;
    });
    return `{\n${rows.join("\n")}\n${"  ".repeat(depth)}}`;
  }
  return schema.format === "binary" ? "file" : (schema.type ?? "anything");
}

// A paragraph of Markdown in which only `code` is marked up.
function paragraph(markdown) {
  const node = element("p", undefined, "muted");
  node.append(...markdown.split("`").map((part, index) => (index % 2 ? element("code", part) : part)));
  return node;
}

function pairs(rows) {
  const list = element("dl");
  for (const [name, content] of rows) list.append(element("dt", name), element("dd", content));
  return list;
}

function operation(path, method, details, all) {
  const section = element("section");
  const title = element("h2");
  title.append(element("span", method.toUpperCase(), "method"), element("code", path));
  section.append(title, element("p", details.summary, "summary"), paragraph(details.description ?? ""));
  if (details.parameters?.length) {
    section.append(element("h3", "Query parameters"));
    section.append(pairs(details.parameters.map((one) => [one.name, one.description ?? ""])));
  }
  if (details.requestBody) {
    section.append(element("h3", "Request body"));
    const kinds = Object.entries(details.requestBody.content);
    section.append(pairs(kinds.map(([kind, { schema }]) => [kind, outline(schema, all)])));
  }
  for (const line of EXAMPLES[path] ?? []) {
    section.append(element("pre", line.replace("SERVER", location.origin)));
  }
  section.append(element("h3", "Responses"));
  section.append(pairs(Object.entries(details.responses).map(([status, one]) => [status, one.description])));
  const success = Object.values(details.responses[200]?.content ?? {})[0];
  if (success) section.append(element("pre", outline(success.schema, all)));
  return section;
}

const response = await fetch("/openapi.json");
const description = await response.json();
const all = description.components?.schemas ?? {};
for (const [path, methods] of Object.entries(description.paths)) {
  for (const [method, details] of Object.entries(methods)) {
    document.getElementById("operations").append(operation(path, method, details, all));
  }
}
