// Reads the form into a row, sends it, and shows the answer. Values are never put into the page as markup.
(() => {
  "use strict";
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const form = document.getElementById("form");
  const byId = (id) => document.getElementById(id);
  const fields = facts.columns.map((column, at) => {
    const box = byId(`field-${at}`);
    return {
      ...column,
      box,
      input: box.querySelector(".control, .switch input"),
      other: box.querySelector(".other"),
      missing: box.querySelector(".missing input"),
      note: box.querySelector(".field-note"),
      said: box.querySelector(".field-note").textContent,
      mark: box.querySelector(".at"),
    };
  });
  const OTHER = "\ufffd"; // stands for a value that is not in the list
  let example = 0;
  let answered = null;
  let chosen = "request";

  class Wrong extends Error {}

  function make(tag, kind, text) {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // The literal that stands for a field's value in JSON. Whole numbers stay text: beyond 2^53 a number would round them.
  function literal(field) {
    if (field.missing && field.missing.checked) return "null";
    if (field.type === "boolean") return String(field.input.checked);
    const picked = field.other && field.input.value === OTHER ? field.other.value : field.input.value;
    if (field.type === "string") return JSON.stringify(picked);
    const text = picked.trim();
    if (field.input.validity.badInput) throw new Wrong("This is no value of this kind.");
    if (text === "") {
      if (field.required) throw new Wrong("A value is needed here.");
      return "null";
    }
    if (field.type === "datetime") return JSON.stringify(`${text.length === 16 ? `${text}:00` : text}Z`);
    if (field.type === "integer" || field.type === "long") {
      if (!/^[+-]?\d+$/.test(text)) throw new Wrong("A whole number is needed here.");
      return BigInt(text.replace("+", "")).toString();
    }
    if (!Number.isFinite(Number(text))) throw new Wrong("A number is needed here.");
    return /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(text) ? text : String(Number(text));
  }

  function row() {
    const pairs = [];
    let wrong = null;
    for (const field of fields) {
      field.box.classList.remove("wrong");
      field.note.textContent = field.said;
      try {
        pairs.push([field.name, literal(field)]);
      } catch (error) {
        if (!(error instanceof Wrong)) throw error;
        field.box.classList.add("wrong");
        field.note.textContent = error.message;
        wrong = wrong || field;
      }
    }
    return { pairs, wrong };
  }

  function body(pairs, spread) {
    if (!spread) return `{${pairs.map(([name, value]) => `${JSON.stringify(name)}: ${value}`).join(", ")}}`;
    return `{\n${pairs.map(([name, value]) => `  ${JSON.stringify(name)}: ${value}`).join(",\n")}\n}`;
  }

  function who() {
    return { entity: byId("entity").value.trim(), variant: byId("variant").value, key: byId("key").value.trim() };
  }

  // Headers are bytes; what is no Latin-1 goes as UTF-8, which the server reads first.
  const bytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

  function asCurl(pairs) {
    const { entity, variant, key } = who();
    const lines = [`curl -s ${quoted(location.origin + facts.path)}`, "-H 'content-type: application/json'"];
    if (entity) lines.push(`-H ${quoted(`x-entity: ${entity}`)}`);
    if (variant) lines.push(`-H ${quoted(`x-variant: ${variant}`)}`);
    if (key) lines.push('-H "x-api-key: $LOOPWRIGHT_API_KEY"');
    lines.push(`-d ${quoted(body(pairs, false))}`);
    return lines.join(" \\\n  ");
  }

  function asPython(pairs) {
    const { entity, variant } = who();
    const words = { null: "None", true: "True", false: "False" };
    const values = pairs.map(([name, value]) => `        ${JSON.stringify(name)}: ${words[value] || value},`);
    const given = [["entity", entity], ["variant", variant]].filter(([, value]) => value);
    const more = given.map(([name, value]) => `, ${name}=${JSON.stringify(value)}`).join("");
    return [
      "import loopwright as lw", "", `with lw.Client(${JSON.stringify(location.origin)}) as client:`,
      "    row = {", ...values, "    }",
      `    answer = client.predict(${JSON.stringify(facts.deployment)}, row${more})`,
      '    print(answer["prediction"], answer["prediction_id"])',
    ].join("\n");
  }

  function showCode(pairs) {
    const texts = {
      request: () => body(pairs, true),
      curl: () => asCurl(pairs),
      python: () => asPython(pairs),
      answer: () => answered || "Nothing was sent yet.",
    };
    byId("code").textContent = texts[chosen]();
  }

  function showPlaces() {
    for (const field of fields) {
      const off = Boolean(field.missing && field.missing.checked);
      field.input.disabled = off;
      if (field.other) {
        field.other.hidden = field.input.value !== OTHER;
        field.other.disabled = off;
      }
      if (field.min === undefined) continue;
      const value = Number(field.input.value);
      const known = !off && field.input.value !== "" && Number.isFinite(value);
      const outside = known && (value < field.min || value > field.max);
      field.box.classList.toggle("outside", outside);
      if (outside && !field.box.classList.contains("wrong")) field.note.textContent = `outside ${field.said}`;
      const width = field.max - field.min;
      const place = width > 0 ? Math.min(1, Math.max(0, (value - field.min) / width)) : 0.5;
      field.mark.toggleAttribute("hidden", !known);
      field.mark.setAttribute("visibility", known ? "visible" : "hidden");
      for (const end of ["x1", "x2"]) field.mark.setAttribute(end, String(known ? place * 100 : 0));
    }
  }

  function refresh() {
    const { pairs } = row();
    showPlaces();
    showCode(pairs);
  }

  function fill(values) {
    fields.forEach((field, at) => {
      const value = values[at];
      if (field.missing) field.missing.checked = value === null;
      if (field.type === "boolean") field.input.checked = value === true;
      else if (field.other) {
        const known = value !== null && [...field.input.options].some((option) => option.value === value);
        field.input.value = known ? value : OTHER;
        if (value === null) field.input.selectedIndex = 0;
        field.other.value = known || value === null ? "" : value;
      } else field.input.value = value === null ? "" : value;
    });
    refresh();
  }

  const number = (value) => {
    if (typeof value !== "number") return String(value);
    return Math.abs(value) >= 1e-4 && Math.abs(value) < 1e15 || value === 0
      ? value.toLocaleString("en", { maximumSignificantDigits: 6 }) : value.toPrecision(5);
  };

  function bars(entries, text) {
    const most = Math.max(...entries.map(([, value]) => Math.abs(value)), 1e-300);
    const scale = facts.task === "classification" ? 1 : most;
    const list = make("ol", "shares");
    entries.forEach(([name, value], at) => {
      const line = make("li", at === 0 && facts.task === "classification" ? "first" : "");
      const track = make("div", "track");
      const filled = make("div", "fill");
      track.append(filled);
      const label = make("span", "share-name", name);
      label.title = name;
      line.append(label, track, make("span", "share-value", text(value)));
      list.append(line);
      requestAnimationFrame(() => { filled.style.width = `${Math.min(100, (Math.abs(value) / scale) * 100)}%`; });
    });
    return list;
  }

  function showAnswer(answer, milliseconds, requestId) {
    const place = byId("result");
    place.replaceChildren();
    const several = answer.prediction !== null && typeof answer.prediction === "object";
    if (several) {
      const given = Array.isArray(answer.prediction)
        ? answer.prediction.map((value, at) => [facts.outputs[at] || String(at), value])
        : Object.entries(answer.prediction);
      if (given.every(([, value]) => typeof value === "number")) place.append(bars(given, number));
      else place.append(make("p", "value", given.map(([name, value]) => `${name}: ${value}`).join(", ")));
    } else {
      const value = make("p", "value", answer.prediction === null ? "no number" : number(answer.prediction));
      value.append(make("small", "", facts.target));
      place.append(value);
    }
    if (answer.probability) {
      const shares = Object.entries(answer.probability).sort((a, b) => b[1] - a[1]);
      const shown = shares.slice(0, 12);
      const rest = shares.slice(12).reduce((sum, [, value]) => sum + value, 0);
      if (shares.length > 12) shown.push([`${shares.length - 12} others`, rest]);
      place.append(bars(shown, (value) => `${(value * 100).toFixed(value > 0 && value < 0.001 ? 3 : 1)} %`));
    }
    const list = make("dl", "facts");
    const fact = (name, value, kind) => {
      const one = make("div", kind || "");
      one.append(make("dt", "", name), value instanceof Node ? value : make("dd", "", value));
      list.append(one);
    };
    fact("latency", `${milliseconds < 10 ? milliseconds.toFixed(1) : milliseconds.toFixed(0)} ms`);
    fact("model", `${answer.model}/${answer.version}`);
    fact("variant", answer.variant);
    const id = make("dd", "id", answer.prediction_id);
    const copy = make("button", "plain small", "Copy");
    copy.type = "button";
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(answer.prediction_id);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(id);
      }
    });
    id.append(copy);
    fact("prediction id", id, "wide");
    if (requestId) fact("request id", requestId, "wide");
    place.append(list);
  }

  function showFault(status, found) {
    const place = byId("result");
    const error = (found && found.error) || {};
    const box = make("div", "fault");
    box.append(make("b", "", status ? `${status} ${error.code || ""}` : "No answer"));
    box.append(make("span", "", error.message || "The server did not answer as a serving worker does."));
    if (error.valid) box.append(make("span", "", error.valid));
    if (error.hint) box.append(make("code", "", error.hint));
    place.replaceChildren(box);
    const field = fields.find((one) => one.name === error.field);
    if (field) {
      field.box.classList.add("wrong");
      field.note.textContent = error.valid || "does not fit";
      field.box.scrollIntoView({ block: "nearest" });
    }
  }

  async function send() {
    const { pairs, wrong } = row();
    showPlaces();
    if (wrong) {
      wrong.input.focus();
      return;
    }
    const { entity, variant, key } = who();
    try { sessionStorage.setItem("key", key); } catch { /* then it is typed again */ }
    const headers = { "content-type": "application/json" };
    if (entity) headers["x-entity"] = bytes(entity);
    if (variant) headers["x-variant"] = bytes(variant);
    if (key) headers["x-api-key"] = bytes(key);
    const button = byId("send");
    button.disabled = true;
    const began = performance.now();
    let status = 0;
    try {
      const answer = await fetch(facts.path, { method: "POST", headers, body: body(pairs, false) });
      const text = await answer.text();
      const took = performance.now() - began;
      status = answer.status;
      let found = null;
      try { found = JSON.parse(text); } catch { /* said below */ }
      answered = found === null ? text : JSON.stringify(found, null, 2);
      if (answer.ok && found && "prediction_id" in found) showAnswer(found, took, answer.headers.get("x-request-id"));
      else showFault(status, found);
      // On a narrow screen the answer is below the form.
      if (matchMedia("(max-width: 900px)").matches) byId("result").closest("section").scrollIntoView({ block: "nearest" });
    } catch (error) {
      showFault(0, { error: { message: `${location.origin} cannot be reached: ${error.message}.`, hint: "loopwright status" } });
    } finally {
      button.disabled = false;
      showCode(pairs);
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  form.addEventListener("input", refresh);
  byId("another").addEventListener("click", () => {
    example = (example + 1) % facts.examples.length;
    fill(facts.examples[example]);
  });
  for (const tab of document.querySelectorAll(".tab")) {
    tab.addEventListener("click", () => {
      chosen = tab.dataset.shows;
      for (const one of document.querySelectorAll(".tab")) one.setAttribute("aria-selected", String(one === tab));
      showCode(row().pairs);
      showPlaces();
    });
  }
  byId("copy").addEventListener("click", async (event) => {
    try {
      await navigator.clipboard.writeText(byId("code").textContent);
      event.target.textContent = "Copied";
      setTimeout(() => { event.target.textContent = "Copy"; }, 1200);
    } catch {
      getSelection().selectAllChildren(byId("code"));
    }
  });
  try { byId("key").value = sessionStorage.getItem("key") || ""; } catch { /* storage may be forbidden */ }
  fill(facts.examples[0]);
})();
