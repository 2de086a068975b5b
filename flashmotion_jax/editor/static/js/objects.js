// The list of objects, front to back, below the camera.

import { $, h, icon, iconButton } from "./dom.js";
import { toggleFlag } from "./commands.js";
import { displayColor } from "./palette.js";

export class ObjectList {
  constructor(store) {
    this.store = store;
    this.list = $("#objects");
    store.addEventListener("any", () => this.draw());
    this.draw();
  }

  draw() {
    const { project, view } = this.store;
    if (project === this.shown?.project && view.selected === this.shown.selected) return;
    this.shown = { project, selected: view.selected };
    const focused = document.activeElement?.dataset?.item;
    const items = [...project.objects].reverse().map((object) => this.#item(object));
    if (project.camera) items.unshift(this.#camera());
    this.list.replaceChildren(...items);
    $("#no-objects").hidden = items.length > 0;
    if (focused) this.list.querySelector(`[data-item="${focused}"]`)?.focus();
  }

  #item(object) {
    const { uid, name, hidden, locked } = object;
    const swatch = h("i", { className: "swatch" });
    swatch.style.background = displayColor(object);
    const chosen = uid === this.store.view.selected;
    const classes = `object${chosen ? " selected" : ""}${hidden ? " off" : ""}`;
    const toggle = (flag, shown, label, pressed) => {
      const button = iconButton(shown, label, () => toggleFlag(this.store, uid, flag), { ariaPressed: String(pressed) });
      button.dataset.item = `${uid}-${flag}`;
      return button;
    };
    return h("li", { className: classes },
      this.#pick(uid, chosen, swatch, name),
      toggle("hidden", hidden ? "eye-off" : "eye", hidden ? `Show ${name}` : `Hide ${name} and leave it out of the maps`, hidden),
      toggle("locked", locked ? "lock" : "unlock", locked ? `Unlock ${name}` : `Lock ${name}`, locked));
  }

  #camera() {
    const chosen = this.store.view.selected === "camera";
    return h("li", { className: `object${chosen ? " selected" : ""}` }, this.#pick("camera", chosen, icon("camera"), "Camera"));
  }

  #pick(uid, chosen, mark, name) {
    const button = h("button", {
      type: "button", className: "pick", ariaPressed: null,
      onclick: () => this.store.show({ selected: chosen ? null : uid }),
    }, mark, h("span", {}, name));
    button.setAttribute("aria-current", String(chosen));
    button.dataset.item = uid;
    return button;
  }
}
