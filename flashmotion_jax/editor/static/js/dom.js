// DOM helpers.

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

/** An element with attributes, listeners (`onclick`) and children. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** An icon of the sprite in index.html. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon; its label is shown on hover and read by screen readers. */
export function iconButton(name, label, onclick, attributes = {}) {
  return h("button", { type: "button", className: "icon-button", title: label, ariaLabel: label, onclick, ...attributes }, icon(name));
}

let hiding = 0;

/** Shows a message in the status line, which screen readers read; errors stay longer. */
export function say(message, isError = false) {
  const line = $("#status");
  line.textContent = message;
  line.classList.toggle("error", isError);
  line.classList.add("shown");
  // The last to be shown is above open dialogs, which would cover it.
  line.hidePopover?.();
  line.showPopover?.();
  clearTimeout(hiding);
  hiding = setTimeout(() => line.classList.remove("shown"), isError ? 12000 : 3500);
}

/** Runs an action and shows its error, if any. */
export async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
    return undefined;
  }
}

/** Plays a video; a pause before it starts is not an error. */
export function play(video) {
  video.play().catch(() => {});
}

/** Downloads a Blob as a file. */
export function download(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

/** Opens a file chooser. */
export function chooseFiles(attributes = {}) {
  return new Promise((resolve) => {
    const input = h("input", { type: "file", hidden: true, ...attributes });
    if (attributes.folder) input.webkitdirectory = true;
    input.addEventListener("change", () => resolve([...input.files]) || input.remove());
    input.addEventListener("cancel", () => resolve([]) || input.remove());
    document.body.append(input);
    input.click();
  });
}
