// The dialog that import, export, help and the list of projects share.

import { $, attempt, h } from "./dom.js";

/** Shows a dialog; `submit` runs when its main button is pressed, and closes it if it succeeds. */
export function showDialog(title, body, { action = null, submit = null, className = "" } = {}) {
  const dialog = $("#dialog");
  const close = () => dialog.close();
  const main = action && h("button", { type: "submit", className: "primary" }, action);
  const form = h("form", { className, onsubmit: async (event) => {
    event.preventDefault();
    main.disabled = true;
    const kept = await attempt(() => submit());
    main.disabled = false;
    if (kept !== undefined && kept !== false) close();
  } },
  h("h2", { id: "dialog-title" }, title), ...body,
  h("div", { className: "actions" }, h("button", { type: "button", onclick: close }, action ? "Cancel" : "Close"), main));
  dialog.replaceChildren(form);
  dialog.showModal();
  dialog.scrollTop = 0; // the focus may be on a button at the end of a long text
  return dialog;
}

export const field = (label, control) => h("label", { className: "stack" }, label, control);

export function select(id, options) {
  return h("select", { id }, ...options.map(([value, text]) => h("option", { value }, text)));
}

const SHORTCUTS = [
  ["Space", "play or pause"], ["← →", "a frame back or on (timeline) · move the object (stage)"],
  ["Home End", "first and last frame"], [", .", "previous and next keyframe"],
  ["V B W P E", "tools: move, box, click, paint, erase; B Enter draws a box without a mouse"], ["R", "record a way in real time"],
  ["K", "keyframe here, or not"], ["N Shift+N", "next and previous object"], ["H L", "hide, lock"],
  ["[ ]", "behind, in front"], ["Ctrl+D", "duplicate"], ["Delete", "delete the object"],
  ["Ctrl+Z Ctrl+Shift+Z", "undo, redo"], ["Ctrl+S Ctrl+O", "save, open a project"],
  ["Ctrl+Enter", "generate"], ["0 + −", "fit, zoom in, zoom out"], ["G O", "ghosts · image under the map"],
  ["Shift+drag", "straight, or in proportion"], ["Alt+click", "the object behind"],
  ["Space+drag", "move the view; two fingers on a touch screen"], ["Esc", "cancel, select nothing"],
];

export function showHelp() {
  const rows = SHORTCUTS.flatMap(([keys, text]) => [
    h("dt", {}, ...keys.split(" ").map((key) => h("kbd", {}, key))), h("dd", {}, text),
  ]);
  showDialog("How it works", [
    h("ol", { className: "hint" }, ...[
      "Load an image and draw a box around what shall move (or click on it, or paint its mask).",
      "Go to another frame and drag the box to where it shall be then. That is a keyframe.",
      "Drag keyframes in the timeline to change speed; click the bar between two to change the motion.",
      "Watch the preview: it is exactly what the model gets. Then generate.",
    ].map((text) => h("li", {}, text))),
    h("dl", { className: "keys" }, ...rows),
  ]);
}
