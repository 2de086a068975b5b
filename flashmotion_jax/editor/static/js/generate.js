// The Generate panel: settings and the queue.

import { api, jsonFile } from "./api.js";
import { NO_IMAGE } from "./checks.js";
import { $, attempt, h, icon, say } from "./dom.js";
import { toTrajectory } from "./motion.js";
import { toFile } from "./project.js";

export class Generate {
  constructor(store, model, video, jobs) {
    Object.assign(this, { store, model, video, jobs });
    this.form = $("#panel-generate");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      attempt(() => this.submit());
    });
    this.#build();
    store.addEventListener("project", () => this.draw());
    video.addEventListener("size", () => this.draw());
    this.draw();
  }

  /** Submits the project as a job. */
  async submit() {
    const { project } = this.store;
    if (!this.model.available) throw new Error(this.model.reason);
    if (this.#lacksImage()) throw new Error(`${NO_IMAGE}: load one.`);
    this.button.disabled = true;
    try {
      const job = await api.submit(await requestOf(project, this.jobs.session));
      await this.jobs.refresh();
      say(job.ahead ? `Queued behind ${job.ahead} ${job.ahead === 1 ? "job" : "jobs"}.` : "Generating …");
    } finally {
      this.draw();
    }
  }

  #lacksImage() {
    return this.model.needs_image && !this.store.project.image;
  }

  #set(name, value, merge = null) {
    this.store.change(`Setting: ${name}`, (draft) => { draft.settings[name] = value; }, merge);
  }

  #number(name, label, attributes, hint) {
    const input = h("input", {
      type: "number", id: `setting-${name}`, ...attributes,
      onchange: () => this.#set(name, input.value === "" ? attributes.fallback ?? null : Number(input.value)),
    });
    return h("label", { title: hint ?? "" }, label, input);
  }

  #build() {
    const { model } = this;
    const prompt = h("textarea", { id: "setting-prompt", rows: 3, oninput: () => this.#set("prompt", prompt.value, "prompt") });
    const dice = h("button", { type: "button", className: "icon-button", ariaLabel: "Random seed", title: "Random seed", onclick: () => this.#set("seed", Math.floor(Math.random() * 2 ** 31)) }, icon("dice"));
    const titles = { ...model.adapter_titles, none: "none (trajectory ignored)" };
    const adapters = [...model.adapters, "none"].map((kind) => h("option", { value: kind }, titles[kind]));
    const adapter = h("select", { id: "setting-adapter", onchange: () => this.#set("adapter", adapter.value) }, ...adapters);
    this.button = h("button", { type: "submit", className: "primary", id: "generate" }, "Generate");
    this.form.replaceChildren(
      ...(model.available ? [] : [h("p", { className: "hint", id: "no-model" }, "There is no model to generate videos; everything else works. ", model.reason)]),
      h("label", { className: "stack" }, "Prompt", prompt),
      ...(model.words ? [h("details", {}, h("summary", {}, `The ${model.words.length} words that this model knows`), h("p", { className: "hint" }, model.words.join(", ")))] : []),
      h("div", { className: "row" }, this.#number("seed", "Seed ", { min: 0, step: 1, fallback: 0 }), dice, h("label", {}, "Adapter ", adapter)),
      h("div", { className: "fields" },
        this.#number("num_inference_steps", "Steps ", { min: 1, max: model.max_inference_steps, step: 1, placeholder: model.num_inference_steps }),
        this.#number("num_frames", "Frames ", { min: 1, step: model.grid.frames, placeholder: model.num_frames }, `${model.grid.frames}n + 1; the motion is stretched to this length`),
        this.#size("height", "Height "), this.#size("width", "Width "),
        this.#number("adapter_scale", "Trajectory ", { min: 0, max: 4, step: 0.05, fallback: 1 }, "Weight of the trajectory; 0 ignores it"),
        ...(model.guidance_scale === null ? [] : [this.#number("guidance_scale", "Guidance ", { min: 1, max: 30, step: 0.5, placeholder: model.guidance_scale })])),
      h("p", { className: "hint", id: "generate-what" }),
      this.button,
      h("div", { id: "queue", ariaLive: "polite" }),
    );
  }

  #size(side, label) {
    const input = h("input", {
      type: "number", id: `setting-${side}`, min: this.model.grid[side], step: this.model.grid[side],
      title: `A multiple of ${this.model.grid[side]}; empty for the size that fits the image and the model`,
      onchange: () => {
        const automatic = this.video.automaticSize();
        const [height, width] = ["height", "width"].map((one) => Number($(`#setting-${one}`).value) || automatic[one]);
        const wanted = height === automatic.height && width === automatic.width ? null : { height, width };
        this.#set("size", wanted);
      },
    });
    return h("label", {}, label, input);
  }

  draw() {
    const { settings } = this.store.project;
    for (const name of ["prompt", "seed", "adapter", "num_inference_steps", "num_frames", "adapter_scale", "guidance_scale"]) {
      const control = $(`#setting-${name}`);
      if (control && control !== document.activeElement) control.value = settings[name] ?? "";
    }
    const automatic = this.video.automaticSize();
    for (const side of ["height", "width"]) {
      const control = $(`#setting-${side}`);
      control.placeholder = automatic[side];
      if (control !== document.activeElement) control.value = settings.size?.[side] ?? "";
    }
    const { height, width, frames, fps } = this.video.get();
    const what = this.store.project.image ? "from the image" : `from the prompt only (no image is loaded${this.#lacksImage() ? ", which this model needs" : ""})`;
    $("#generate-what").textContent = `${frames} frames of ${width} × ${height}, ${(frames / fps).toFixed(1)} s, ${what}, with ${this.model.name}.`;
    this.button.disabled = !this.model.available || this.#lacksImage();
  }
}

/** The form fields of `POST /api/jobs` for a project. */
export async function requestOf(project, session) {
  const { settings, image } = project;
  const { size, ...plain } = settings;
  return {
    ...plain,
    ...size,
    trajectory: settings.adapter === "none" ? null : jsonFile(toTrajectory(project), "trajectory.json"),
    image: image && new File([image.blob], image.name),
    project: jsonFile(await toFile(project), "project.json"),
    session,
    name: project.name,
  };
}
