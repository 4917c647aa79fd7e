"use strict";
// The commands that do what the form asks for. Words are quoted, and no token is ever part of one.

function shellWord(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

const ENDINGS = { jpeg: "jpg", webp: "webp", avif: "avif", png: "png" };

// What `choice` (width, height, fit, format, quality) is as a list of names and values; a default is left out.
function chosen({ width, height, fit, format, quality }) {
  const pairs = [];
  if (width) pairs.push(["width", width]);
  if (height) pairs.push(["height", height]);
  if (width && height) pairs.push(["fit", fit]);
  if (format !== "jpeg") pairs.push(["format", format]);
  if (format !== "png") pairs.push(["quality", quality]);
  return pairs;
}

function queryOf(choice) {
  return new URLSearchParams(chosen(choice).map(([name, value]) => [name, String(value)])).toString();
}

function commandsFor(choice, { name, origin, withToken }) {
  const pairs = chosen(choice);
  const result = `result.${ENDINGS[choice.format]}`;
  const login = withToken ? ` -H "Authorization: Bearer $VIPSRV_TOKEN" \\\n ` : "";
  const keywords = pairs.map(([key, value]) => `, ${key}=${typeof value === "number" ? value : JSON.stringify(value)}`).join("");
  return [
    { title: "curl", text: `curl --fail-with-body${login} --data-binary ${shellWord(`@${name}`)} \\\n  '${origin}/resize?${queryOf(choice)}' -o ${result}` },
    { title: "Python", text: `from vipsrv import Client\n\nwith Client() as client:\n    client.resize(${JSON.stringify(name)}${keywords}).save(${JSON.stringify(result)})` },
    { title: "Command line", text: `vipsrv-client ${shellWord(name.startsWith("-") ? `./${name}` : name)}${pairs.map(([key, value]) => ` --${key} ${value}`).join("")} -o ${result}` },
  ];
}

class Commands {
  constructor(parent, announce) {
    this.announce = announce;
    this.list = new KeyedList(parent, {
      key: (one) => one.title,
      create: ({ title }) => this.create(title),
      update: (element, { text }) => setText(element.code, text),
    });
  }

  show(commands) {
    this.list.show(commands);
  }

  create(title) {
    const code = make("code");
    const pre = make("pre", { tabindex: "0", role: "region", "aria-label": `${title} command` }, code);
    const button = make("button", { type: "button", class: "quiet" }, "Copy");
    button.setAttribute("aria-label", `Copy the ${title} command`);
    button.addEventListener("click", () => this.copy(button, code));
    const element = make("div", { class: "command" }, make("div", { class: "heading" }, make("h4", { class: "label" }, title), button), pre);
    element.code = code;
    return element;
  }

  // Where the page is not allowed to write to the clipboard, it selects the text instead.
  async copy(button, code) {
    let said = "Copied";
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code);
      said = "Selected: press Ctrl+C";
    }
    setText(button, said);
    this.announce(said);
    setTimeout(() => setText(button, "Copy"), 2500);
  }
}
