// A result next to its map, with requested and measured boxes on every frame.

import { api } from "./api.js";
import { $, h, icon, play } from "./dom.js";
import { displayColor } from "./palette.js";
import { Renderer } from "./render.js";

/** Opens the dialog of a finished job. */
export async function openResult(job, model) {
  const [trajectory, boxes] = await Promise.all(["trajectory", "boxes"].map((file) =>
    job.files.includes(file) ? api.jobJson(job.id, file) : null));
  const dialog = $("#result");
  const viewer = new Viewer(dialog, job, model, trajectory, boxes);
  dialog.addEventListener("close", () => viewer.stop(), { once: true });
  dialog.showModal();
  return viewer;
}

class Viewer {
  constructor(dialog, job, model, trajectory, boxes) {
    Object.assign(this, { dialog, job, boxes });
    const { height, width, resize, num_frames: frames } = job.video;
    const mapKind = job.settings.map_kind ?? model.map_kind;
    this.renderer = trajectory && new Renderer(trajectory, { height, width, resize, frames, mapKind, pointSigma: model.point_sigma });
    this.pixels = new ImageData(width, height);
    this.scale = Math.max(1, Math.floor(512 / Math.max(width, height)));
    this.video = h("video", { src: api.jobFile(job.id, "result"), muted: true, loop: true, playsInline: true, preload: "auto" });
    this.#build();
    this.video.addEventListener("loadeddata", () => this.draw());
    this.video.addEventListener("seeked", () => this.draw());
    this.video.requestVideoFrameCallback?.(this.#presented);
  }

  stop() {
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
    this.dialog.replaceChildren();
  }

  #presented = (_, { mediaTime }) => {
    if (!this.dialog.open) return;
    this.draw(mediaTime);
    this.video.requestVideoFrameCallback(this.#presented);
  };

  #build() {
    const { job, dialog } = this;
    const { num_frames: frames, fps, width, height } = job.video;
    const canvas = (label) => h("canvas", {
      width: width * this.scale, height: height * this.scale, className: this.scale > 1 ? "pixels" : "", role: "img", ariaLabel: label,
    });
    this.canvas = canvas("The video, with boxes");
    this.map = h("canvas", { width, height, className: this.scale > 1 ? "pixels" : "", role: "img", ariaLabel: "The trajectory map" });
    this.slider = h("input", { type: "range", min: 0, max: frames - 1, value: 0, ariaLabel: "Frame of the result", oninput: () => { this.video.pause(); this.seek(Number(this.slider.value)); } });
    this.number = h("output", { className: "muted" }, `0 / ${frames - 1}`);
    this.overlay = h("input", { type: "checkbox", checked: true, onchange: () => this.draw() });
    this.button = h("button", { type: "button", className: "icon-button play", ariaLabel: "Play", onclick: () => this.toggle() }, icon("play"));
    for (const event of ["play", "pause"]) {
      this.video.addEventListener(event, () => {
        this.button.replaceChildren(icon(this.video.paused ? "play" : "pause"));
        this.button.setAttribute("aria-label", this.video.paused ? "Play" : "Pause");
      });
    }
    this.table = h("tbody");
    const seconds = Object.entries(job.seconds).map(([stage, time]) => `${stage} ${time.toFixed(2)} s`).join(" · ");
    dialog.replaceChildren(h("div", { className: "body" },
      h("div", { className: "panel-head" }, h("h2", {}, job.name || "Result"), h("button", { type: "button", className: "icon-button", ariaLabel: "Close", onclick: () => dialog.close() }, "✕")),
      h("div", { className: "pair" },
        h("figure", {}, this.map, h("figcaption", {}, "Input map")),
        h("figure", {}, this.canvas, h("figcaption", {}, "Result"))),
      h("div", { className: "result-bar" }, this.button, this.slider, this.number, h("label", { className: "check" }, this.overlay, "Boxes")),
      this.#measures(),
      h("p", { className: "hint" }, `${width} × ${height}, ${frames} frames, ${fps} fps · ${job.settings.prompt || "no prompt"} · seed ${job.settings.seed} · ${seconds}`),
      h("div", { className: "actions" },
        ...[["map", "Map video"], ["trajectory", "trajectory.json"], ["result", "Video"]].filter(([file]) => job.files.includes(file)).map(([file, label]) =>
          h("a", { href: api.jobFile(job.id, file), download: file === "trajectory" ? "trajectory.json" : `${job.name || file}${file === "map" ? "-map" : ""}.mp4`, className: "download" }, `Download ${label}`)))));
  }

  #measures() {
    const { boxes } = this;
    if (!boxes?.objects.length) return null;
    const measured = boxes.objects.some((object) => object.measured);
    const head = ["Object", "requested", ...(measured ? ["measured", "IoU", "mean IoU"] : [])];
    return h("div", { className: "scroll" },
      h("p", { className: "legend" }, h("span", {}, h("i", { className: "requested" }), "requested"),
        measured ? h("span", {}, h("i"), "measured") : h("span", {}, boxes.reason ?? "No object has a color of its own, so nothing is measured.")),
      h("table", {}, h("thead", {}, h("tr", {}, ...head.map((text) => h("th", { scope: "col" }, text)))), this.table));
  }

  toggle() {
    if (this.video.paused) play(this.video);
    else this.video.pause();
  }

  seek(frame) {
    this.wanted = frame;
    this.video.currentTime = (frame + 0.5) / this.job.video.fps;
  }

  /** Draws the current frame of the video. */
  draw(time = this.video.currentTime) {
    const { num_frames: frames, fps, width, height } = this.job.video;
    const frame = Math.min(frames - 1, Math.max(0, Math.floor(time * fps + 1e-3)));
    this.slider.value = frame;
    this.number.value = `${frame} / ${frames - 1}`;
    const context = this.canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(this.video, 0, 0, this.canvas.width, this.canvas.height);
    if (this.renderer) {
      this.renderer.render(frame, this.pixels.data);
      this.map.getContext("2d").putImageData(this.pixels, 0, 0);
    }
    this.canvas.dataset.frame = frame;
    for (const object of this.overlay.checked ? this.boxes?.objects ?? [] : []) {
      context.strokeStyle = displayColor({ color: `#${object.rgb.map((c) => c.toString(16).padStart(2, "0")).join("")}` });
      context.lineWidth = Math.max(2, (Math.max(width, height) * this.scale) / 300);
      context.setLineDash([3 * context.lineWidth, 2 * context.lineWidth]);
      this.#box(context, object.requested[frame]);
      context.setLineDash([]);
      this.#box(context, object.measured?.[frame]);
    }
    this.#rows(frame);
  }

  #box(context, box) {
    if (!box || box.some((edge) => edge === null)) return;
    const [x0, y0, x1, y1] = box.map((edge, i) => edge * (i % 2 ? this.canvas.height : this.canvas.width));
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }

  #rows(frame) {
    const objects = this.boxes?.objects ?? [];
    const measured = objects.some((object) => object.measured);
    const corners = (box) => (!box || box.includes(null) ? "not visible" : box.map((edge) => Math.round(edge * 100)).join(" "));
    this.table.replaceChildren(...objects.map((object) => {
      const counted = (object.iou ?? []).slice(1).filter((value) => value !== null);
      const mean = counted.length ? (counted.reduce((sum, value) => sum + value, 0) / counted.length).toFixed(2) : "–";
      const cells = [object.name || `object ${object.id}`, corners(object.requested[frame])];
      if (measured) cells.push(object.measured ? corners(object.measured[frame]) : "–", object.iou?.[frame]?.toFixed(2) ?? "–", mean);
      return h("tr", {}, ...cells.map((text) => h("td", {}, text)));
    }));
  }
}
