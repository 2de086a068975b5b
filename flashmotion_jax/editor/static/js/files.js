// Projects and images: opening, saving, dropping, autosave.

import { api } from "./api.js";
import * as autosave from "./autosave.js";
import { $, attempt, chooseFiles, download, h, say } from "./dom.js";
import { showDialog } from "./dialogs.js";
import { decodeImage } from "./images.js";
import { FORMAT, fromFile, newProject, restored, toFile } from "./project.js";
import { resized } from "./masks.js";

const AUTOSAVE_MS = 500;

export class Files {
  constructor(store, model, session, exchange) {
    Object.assign(this, { store, model, session, exchange });
    store.addEventListener("project", () => this.#saveSoon());
    window.addEventListener("pagehide", () => this.saveNow());
    document.addEventListener("visibilitychange", () => document.hidden && this.saveNow());
    this.#drops();
  }

  decode = (blob, name) => decodeImage(blob, name, this.model);

  async chooseImage() {
    const [file] = await chooseFiles({ accept: "image/*" });
    if (file) await this.takeImage(file, file.name);
  }

  /** Loads an image. Boxes keep their relative position, masks are resized. */
  async takeImage(blob, name) {
    say(`Loading ${name} …`);
    const image = await this.decode(blob, name);
    const canvas = { width: image.width, height: image.height };
    this.store.change("Load an image", (draft) => {
      draft.image = image;
      draft.canvas = canvas;
      if (draft.name === "Untitled") draft.name = name.replace(/\.\w+$/, "");
      for (const object of draft.objects) {
        object.mask = object.mask && resized(object.mask, canvas.height, canvas.width);
      }
    });
    this.store.show({ zoom: 1, pan: [0, 0] });
    say(`${name}: ${image.width} × ${image.height}`);
  }

  async save() {
    const { project } = this.store;
    const text = JSON.stringify(await toFile(project));
    const name = `${project.name.replace(/[^\p{L}\p{N}_-]+/gu, "-") || "project"}.flashmotion.json`;
    download(new Blob([text], { type: "application/json" }), name);
    say(`Saved ${name}, including the image.`);
  }

  async chooseProject() {
    const [file] = await chooseFiles({ accept: ".json,application/json" });
    if (file) await this.open(file);
  }

  async open(file) {
    let data;
    try {
      data = JSON.parse(await file.text());
    } catch {
      throw new Error(`${file.name} is not a project: it is not JSON.`);
    }
    this.show(await fromFile(data, this.model, this.decode), "Open a project");
    say(`Opened ${this.store.project.name}.`);
  }

  /** Replaces the current project; undo restores it. */
  show(project, label) {
    this.store.change(label, (draft) => {
      for (const key of Object.keys(draft)) delete draft[key];
      Object.assign(draft, project);
    });
    this.store.show({ frame: 0, selected: null, zoom: 1, pan: [0, 0], playing: false });
  }

  async restoreJob(job) {
    const data = await api.jobJson(job.id, "project");
    this.show(await fromFile(data, this.model, this.decode), "Restore a project");
    $("#result").close();
    say(`Restored the project of this result. Undo returns to the previous project.`);
  }

  /** Opens the project of this session or of the session it was copied from, else the file of --image. */
  async begin(copiedFrom) {
    const kept = await autosave.load(this.session) ?? (copiedFrom && await autosave.load(copiedFrom));
    if (kept) {
      const image = kept.image && await this.decode(kept.image.blob, kept.image.name);
      Object.assign(this.store, { project: restored(this.model, kept, image) });
      this.store.show({ frame: 0 });
      this.store.dispatchEvent(new Event("project"));
      this.store.dispatchEvent(new Event("any"));
      return;
    }
    const { image } = await api.start();
    if (image) await this.takeImage(await api.startImage(), image);
  }

  async showRecent() {
    const entries = (await autosave.recent()).filter((entry) => entry.session !== this.session);
    const items = entries.map((entry) => h("li", {}, h("button", { type: "button", onclick: () => attempt(async () => {
      const image = entry.project.image && await this.decode(entry.project.image.blob, entry.project.image.name);
      this.show(restored(this.model, entry.project, image), "Open a recent project");
      dialog.close();
    }) }, h("b", {}, entry.name), h("span", { className: "muted" }, new Date(entry.time).toLocaleString()))));
    const dialog = showDialog("Projects", [
      h("p", { className: "hint" }, "Each tab keeps its project in this browser. Use “Save” to get a file."),
      items.length ? h("ul", { className: "recent", ariaLabel: "Recent projects" }, ...items) : h("p", { className: "hint" }, "There are no other projects in this browser."),
      h("div", {}, h("button", { type: "button", id: "new-project", onclick: () => { this.show(newProject(this.model), "New project"); dialog.close(); } }, "New empty project")),
    ]);
  }

  #saveSoon() {
    this.unsaved = true;
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.saveNow(), AUTOSAVE_MS);
  }

  async saveNow() {
    clearTimeout(this.waiting);
    const { project } = this.store;
    await attempt(() => autosave.save(this.session, project));
    if (project === this.store.project) this.unsaved = false;
  }

  #drops() {
    let depth = 0;
    const shows = (shown) => $("#drop").classList.toggle("shown", shown);
    const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
    document.addEventListener("dragenter", (event) => { if (hasFiles(event)) { depth += 1; shows(true); } });
    document.addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); shows(depth > 0); });
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      depth = 0;
      shows(false);
      attempt(() => this.take([...event.dataTransfer.files]));
    });
  }

  /** Opens dropped files as an image, a project or a trajectory. */
  async take(files) {
    if (!files.length) return;
    const [file] = files;
    if (files.length === 1 && file.type.startsWith("image/")) {
      await this.takeImage(file, file.name);
    } else if (files.length === 1 && /\.json$/i.test(file.name) && (await file.slice(0, 200).text()).includes(FORMAT)) {
      await this.open(file);
    } else {
      await this.exchange.importFiles(files);
    }
  }
}
