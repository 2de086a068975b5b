// The preview: the exact maps of the model, alone or on top of the image.

import { $, h } from "./dom.js";
import { cropOf } from "./geometry.js";
import { toTrajectory } from "./motion.js";
import { Renderer } from "./render.js";

export const KINDS = { box: "outlines", filled_box: "filled boxes", mask: "masks", points: "points" };

export class Preview {
  constructor(store, model, video) {
    Object.assign(this, { store, model, video });
    this.canvas = $("#preview");
    this.context = this.canvas.getContext("2d");
    const kinds = Object.entries(KINDS).map(([kind, name]) =>
      h("option", { value: kind === model.map_kind ? "" : kind }, kind === model.map_kind ? `${name} (the model's)` : name));
    $("#preview-kind").replaceChildren(...kinds);
    $("#preview-kind").addEventListener("change", (event) =>
      store.change("Map kind", (draft) => { draft.settings.map_kind = event.target.value || null; }));
    $("#preview-mode").addEventListener("change", () => this.request());
    this.#sparse();
    store.addEventListener("project", () => { this.renderer = null; this.request(); });
    store.addEventListener("view", () => this.request());
    video.addEventListener("size", () => { this.renderer = null; this.request(); });
    this.request();
  }

  request() {
    if (!this.waiting) this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.draw(); });
  }

  draw() {
    if (this.canvas.closest("[hidden]")) return;
    const video = this.video.get();
    const frame = this.video.toVideo(this.store.view.frame);
    const { renderer } = this.#rendering(video);
    renderer.render(frame, this.pixels.data);
    this.context.globalCompositeOperation = "copy";
    if ($("#preview-mode").value === "over" && this.store.project.image) this.#over(video);
    else this.context.putImageData(this.pixels, 0, 0);
    this.canvas.dataset.frame = frame;
    const { mapKind } = video;
    $("#preview-caption").textContent =
      `The model's input: frame ${frame} of ${video.frames - 1}, ${video.width} × ${video.height}, ${video.fps} fps, ${KINDS[mapKind]}.`;
    $("#preview-kind").value = this.store.project.settings.map_kind ?? "";
    const { sparse_frames: sparse } = this.store.project;
    $("#sparse").checked = sparse !== null;
    $("#sparse-field").hidden = sparse === null;
  }

  /** The renderer of the current project, created on first use. */
  #rendering(video) {
    if (!this.renderer) {
      this.renderer = new Renderer(toTrajectory(this.store.project), video);
      if (this.canvas.width !== video.width || this.canvas.height !== video.height || !this.pixels) {
        Object.assign(this.canvas, { width: video.width, height: video.height });
        this.pixels = new ImageData(video.width, video.height);
        this.layer = new OffscreenCanvas(video.width, video.height);
      }
    }
    return { renderer: this.renderer };
  }

  #over(video) {
    const { width, height } = video;
    const { project } = this.store;
    const { data } = this.pixels;
    for (let i = 0; i < data.length; i += 4) if (!(data[i] | data[i + 1] | data[i + 2])) data[i + 3] = 0;
    this.layer.getContext("2d").putImageData(this.pixels, 0, 0);
    const crop = cropOf(project.canvas, video);
    const { image } = project;
    const [x, y] = [crop[0] * image.width, crop[1] * image.height];
    const source = [x, y, (crop[2] - crop[0]) * image.width, (crop[3] - crop[1]) * image.height];
    this.context.imageSmoothingQuality = "high";
    this.context.drawImage(image.bitmap, ...source, 0, 0, width, height);
    this.context.globalCompositeOperation = "source-over";
    this.context.globalAlpha = 0.8;
    this.context.drawImage(this.layer, 0, 0);
    this.context.globalAlpha = 1;
  }

  #sparse() {
    const set = () => this.store.change("Sparse frames", (draft) => {
      const step = Math.max(2, Number($("#sparse-step").value) || 4);
      const frames = [];
      for (let frame = 0; frame < draft.num_frames; frame += step) frames.push(frame);
      draft.sparse_frames = $("#sparse").checked ? frames : null;
    });
    $("#sparse").addEventListener("change", set);
    $("#sparse-step").addEventListener("change", set);
  }
}
