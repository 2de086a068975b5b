// The list of warnings; clicking one shows its object and frame.

import { $, h } from "./dom.js";
import { findWarnings } from "./checks.js";

export class WarningList {
  constructor(store, model, video) {
    Object.assign(this, { store, model, video });
    store.addEventListener("project", () => this.request());
    video.addEventListener("size", () => this.request());
    this.request();
  }

  /** Checks shortly after the last change, because a drag makes many. */
  request() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.draw(), 150);
  }

  draw() {
    const { project } = this.store;
    const found = findWarnings(project, this.model, this.video.get());
    const text = JSON.stringify([found, project.objects.length > 0]);
    if (text === this.shown) return;
    this.shown = text;
    $("#warning-count").textContent = found.length ? `(${found.length})` : "";
    const items = found.map((warning) => {
      const text = [h("span", { className: "mark", ariaHidden: "true" }, warning.note ? "i" : "!"), h("span", {}, warning.text)];
      const leads = () => this.store.show({ selected: warning.uid, frame: warning.frame });
      const body = warning.uid ? h("button", { type: "button", onclick: leads }, ...text) : h("p", {}, ...text);
      return h("li", { className: warning.note ? "note" : "" }, body);
    });
    if (!items.length && project.objects.length) items.push(h("li", { className: "fine" }, "✓ No warnings."));
    $("#warnings").replaceChildren(...items);
    $("#warnings-panel").hidden = !items.length;
  }
}
