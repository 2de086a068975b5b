// The dialog for import, export, help and the list of projects.

import { $, attempt, h } from "./dom.js";

/** Shows a dialog; its main button runs `submit`, and closes the dialog on success. */
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
  dialog.scrollTop = 0; // focus may have scrolled to a button below a long text
  return dialog;
}

export const field = (label, control) => h("label", { className: "stack" }, label, control);

export function select(id, options) {
  return h("select", { id }, ...options.map(([value, text]) => h("option", { value }, text)));
}

const SHORTCUTS = [
  ["Space", "play or pause"], ["← →", "previous or next frame (timeline) · move the object (stage)"],
  ["Home End", "first and last frame"], [", .", "previous and next keyframe"],
  ["V B W P E", "tools: move, box, click, paint, erase; B, Enter draws a box without a mouse"], ["R", "record motion in real time"],
  ["K", "add or remove a keyframe"], ["N Shift+N", "next and previous object"], ["H L", "hide, lock"],
  ["[ ]", "send back, bring forward"], ["Ctrl+D", "duplicate"], ["Delete", "delete the object"],
  ["Ctrl+Z Ctrl+Shift+Z", "undo, redo"], ["Ctrl+S Ctrl+O", "save, open a project"],
  ["Ctrl+Enter", "generate"], ["0 + −", "fit, zoom in, zoom out"], ["G O", "show ghosts · show the image under the map"],
  ["Shift+drag", "move straight, or keep the aspect ratio"], ["Alt+click", "select the object behind"],
  ["Space+drag", "move the view; use two fingers on a touch screen"], ["Esc", "cancel, clear the selection"],
];

export function showHelp() {
  const rows = SHORTCUTS.flatMap(([keys, text]) => [
    h("dt", {}, ...keys.split(" ").map((key) => h("kbd", {}, key))), h("dd", {}, text),
  ]);
  showDialog("Help", [
    h("ol", { className: "hint" }, ...[
      "Load an image and draw a box around an object (or click on it, or paint its mask).",
      "Go to another frame and drag the box to its new position. This adds a keyframe.",
      "Drag keyframes in the timeline to change the speed; click the bar between two keyframes to change the easing.",
      "Check the preview, which is exactly what the model gets. Then generate.",
    ].map((text) => h("li", {}, text))),
    h("dl", { className: "keys" }, ...rows),
  ]);
}
