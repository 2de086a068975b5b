// The properties of the selected object or the camera.

import { $, h } from "./dom.js";
import {
  crossEdge, duplicate, mirror, moveCamera, nameOf, changeSelected, removeSelected, restack, reverse,
  selectedTrack, setAnchored, setVisibleBox,
} from "./commands.js";
import { visibleBox } from "./geometry.js";
import { boxOf } from "./masks.js";
import { boxAt } from "./motion.js";
import { rgbOf, toHex } from "./palette.js";
import { setBox } from "./project.js";

const SIDES = { left: "◀", top: "▲", bottom: "▼", right: "▶" };

export class Properties {
  constructor(store) {
    this.store = store;
    this.form = $("#properties");
    this.form.addEventListener("submit", (event) => event.preventDefault());
    store.addEventListener("any", () => this.draw());
    this.draw();
  }

  draw() {
    const track = selectedTrack(this.store);
    this.form.hidden = !track;
    if (!track) {
      this.shownFor = null;
      return;
    }
    const uid = track === this.store.project.camera ? "camera" : track.uid;
    const built = `${uid} ${Boolean(track.mask)} ${track.locked}`;
    if (built !== this.shownFor) this.#build(track, built);
    this.#fill(track);
  }

  #build(track, built) {
    this.shownFor = built;
    const isCamera = track === this.store.project.camera;
    this.form.replaceChildren(...(isCamera ? this.#camera() : this.#object(track)));
    for (const control of this.form.querySelectorAll("input, select, button")) {
      control.disabled = track.locked && control.dataset.always === undefined;
    }
  }

  #object(track) {
    const { store } = this;
    const change = (label, edit, merge) => changeSelected(store, label, edit, merge);
    const name = h("input", { type: "text", id: "object-name", maxLength: 60, oninput: () => change("Rename", (object) => { object.name = name.value; }, "rename") });
    const color = h("input", { type: "color", id: "object-color", oninput: () => change("Color", (object) => { object.color = color.value === "#000000" ? "#010101" : color.value; }, "color") });
    const check = (id, text, title, onchange) => h("label", { className: "check", title }, h("input", { type: "checkbox", id, onchange }), text);
    return [
      h("h2", {}, "Selected object"),
      h("div", { className: "row" }, h("label", {}, "Name ", name), h("label", {}, "Color ", color)),
      h("div", { className: "fields" }, ...["x", "y", "width", "height"].map((key) => this.#number(key))),
      h("label", {}, "Path ", this.#pathSelect()),
      check("object-anchored", "Anchor: stays in place", "For objects that should not move", (event) => setAnchored(store, event.target.checked)),
      check("object-pinned", "Ignores the camera", "For objects that do not move with the scene", (event) => change("Camera", (object) => { object.pinned = event.target.checked; })),
      h("div", { className: "buttons", role: "group", ariaLabel: "Object" },
        h("button", { type: "button", onclick: () => duplicate(store), title: "Ctrl+D" }, "Duplicate"),
        h("button", { type: "button", onclick: () => restack(store, 1), title: "Bring forward ( ] )" }, "Forward"),
        h("button", { type: "button", onclick: () => restack(store, -1), title: "Send back ( [ )" }, "Back"),
        h("button", { type: "button", className: "danger", onclick: () => removeSelected(store), title: "Delete" }, "Delete")),
      this.#moreObject(track),
    ];
  }

  #moreObject(track) {
    const { store } = this;
    const side = (name, enters) => h("button", {
      type: "button", ariaLabel: enters ? `Enter from the ${name}` : `Leave to the ${name}`, onclick: () => crossEdge(store, name, enters),
    }, SIDES[name]);
    const mask = track.mask ? [
      h("button", { type: "button", onclick: () => changeSelected(store, "Fit the box", (object) => setBox(object, 0, boxOf(object.mask))) }, "Box to mask"),
      h("button", { type: "button", className: "danger", onclick: () => changeSelected(store, "Remove the mask", (object) => { object.mask = null; }) }, "Remove mask"),
    ] : [h("span", { className: "hint" }, "No mask: frame 0 shows the filled box. Press P to paint a mask.")];
    return h("details", { open: this.wasOpen ?? false, ontoggle: (event) => { this.wasOpen = event.target.open; } },
      h("summary", {}, "Mirror, enter and leave, mask"),
      h("div", { className: "stack" },
        h("div", { className: "buttons" },
          h("button", { type: "button", onclick: () => mirror(store, "x") }, "Mirror ⇋"),
          h("button", { type: "button", onclick: () => mirror(store, "y") }, "Mirror ⇵"),
          h("button", { type: "button", onclick: () => reverse(store) }, "Reverse")),
        h("div", { className: "row" }, h("span", { className: "hint" }, "Enter from"), h("div", { className: "buttons" }, ...Object.keys(SIDES).map((name) => side(name, true)))),
        h("div", { className: "row" }, h("span", { className: "hint" }, "Leave to"), h("div", { className: "buttons" }, ...Object.keys(SIDES).map((name) => side(name, false)))),
        h("div", { className: "buttons" }, ...mask)));
  }

  #camera() {
    const { store } = this;
    const preset = (text, label, change) => h("button", { type: "button", ariaLabel: label, title: label, onclick: () => moveCamera(store, change) }, text);
    return [
      h("h2", {}, "Camera"),
      h("p", { className: "hint" }, "The yellow frame shows where frame 0 is in the current frame. Boxes move with it."),
      h("div", { className: "fields" }, ...["x", "y", "width"].map((key) => this.#number(key))),
      h("label", {}, "Path ", this.#pathSelect()),
      h("div", { className: "buttons", role: "group", ariaLabel: "Over the whole video" },
        preset("Pan ◀", "The camera pans to the left", { dx: -0.2 }), preset("Pan ▶", "The camera pans to the right", { dx: 0.2 }),
        preset("Pan ▲", "The camera pans up", { dy: -0.2 }), preset("Pan ▼", "The camera pans down", { dy: 0.2 }),
        preset("Zoom in", "The camera moves closer", { factor: 1.25 }), preset("Zoom out", "The camera moves back", { factor: 0.8 })),
      h("div", { className: "buttons" }, h("button", { type: "button", className: "danger", onclick: () => removeSelected(store) }, "Remove the camera")),
    ];
  }

  #pathSelect() {
    const select = h("select", {
      id: "object-path", onchange: () => changeSelected(this.store, `Path: ${select.value}`, (track) => { track.path = select.value; }),
    }, h("option", { value: "straight" }, "straight lines"), h("option", { value: "spline" }, "smooth curve (spline)"));
    return select;
  }

  /** A field for a side of the box on the current frame, in percent of the canvas. */
  #number(key) {
    const input = h("input", { type: "number", id: `box-${key}`, step: 0.5, title: "In percent of the canvas", onchange: () => this.#setSide(key, Number(input.value) / 100) });
    return h("label", {}, `${{ x: "Left", y: "Top", width: "Width", height: "Height" }[key]}`, input);
  }

  #setSide(key, value) {
    const { store } = this;
    const track = selectedTrack(store);
    if (!track || !Number.isFinite(value)) return;
    const [x0, y0, x1, y1] = visibleBox(store.project, track, store.view.frame);
    const size = Math.max(value, 0.005);
    if (track === store.project.camera && key === "width") setVisibleBox(store, [x0, y0, x0 + size, y0 + size]);
    else if (key === "x") setVisibleBox(store, [value, y0, value + x1 - x0, y1]);
    else if (key === "y") setVisibleBox(store, [x0, value, x1, value + y1 - y0]);
    else if (key === "width") setVisibleBox(store, [x0, y0, x0 + size, y1]);
    else setVisibleBox(store, [x0, y0, x1, y0 + size]);
  }

  #fill(track) {
    const { project, view } = this.store;
    const [x0, y0, x1, y1] = visibleBox(project, track, view.frame);
    const shown = {
      "box-x": x0, "box-y": y0, "box-width": x1 - x0, "box-height": y1 - y0,
    };
    const set = (id, property, value) => {
      const control = document.getElementById(id);
      if (control && (control !== document.activeElement || control.type !== "text")) control[property] = value;
    };
    for (const [id, value] of Object.entries(shown)) {
      if (document.activeElement?.id !== id) set(id, "value", Math.round(value * 1000) / 10);
    }
    set("object-path", "value", track.path);
    if (track === project.camera) return;
    set("object-name", "value", nameOf(project, track));
    set("object-color", "value", toHex(rgbOf(track)));
    set("object-anchored", "checked", track.anchored);
    set("object-pinned", "checked", track.pinned);
    document.getElementById("object-pinned").parentElement.hidden = !project.camera;
    const path = document.getElementById("object-path");
    path.disabled = track.locked || track.anchored;
    path.title = boxAt(track, 0) && track.keyframes.length < 3 ? "A curve needs at least three keyframes" : "";
  }
}
