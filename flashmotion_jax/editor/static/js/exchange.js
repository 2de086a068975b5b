// The import and export dialogs.

import { api, jsonFile } from "./api.js";
import { chooseFiles, download, h, say } from "./dom.js";
import { field, select, showDialog } from "./dialogs.js";
import { decodeImage } from "./images.js";
import { resized } from "./masks.js";
import { toTrajectory } from "./motion.js";
import { KINDS } from "./preview.js";
import { takeTrajectory } from "./project.js";

export class Exchange {
  /** `formats` is the server's table of trajectory formats. */
  constructor(store, model, formats, video, jobs) {
    Object.assign(this, { store, model, formats, video, jobs });
  }

  showImport() {
    const { canvas } = this.store.project;
    const side = Math.round(Math.min(canvas.width, canvas.height) / 5);
    const kind = select("import-kind", Object.entries(KINDS));
    const into = select("import-into", [["replace", "replace the objects"], ["add", "add to the objects"]]);
    const size = ["width", "height"].map((name) => h("input", { type: "number", id: `import-${name}`, min: 1, value: side, ariaLabel: `Box ${name} in pixels` }));
    const row = h("input", { type: "text", id: "import-id", placeholder: "first row" });
    const take = async (choose) => {
      const files = await choose();
      if (!files.length) return;
      await this.importFiles(files, { map_kind: kind.value, replace: into.value === "replace", box_width: size[0].value, box_height: size[1].value, id: row.value });
      dialog.close();
    };
    const run = (choose) => () => take(choose).catch((error) => say(error.message, true));
    const dialog = showDialog("Import", [
      h("p", { className: "hint" }, "Files or a folder of one of these formats, or a zip of them. You can also drop them anywhere on the page."),
      h("ul", { className: "hint" }, ...this.formats.filter((format) => format.reads).map((format) => h("li", {}, `${format.title}: ${format.suffixes.join(" ")}`))),
      field("Objects", into), field("What a map video shows after frame 0", kind),
      h("div", { className: "row" }, h("span", { className: "hint" }, "Boxes around point tracks, in pixels"), ...size),
      field("Row of a MagicData folder", row),
      h("div", { className: "row" },
        h("button", { type: "button", className: "primary", id: "import-files", onclick: run(() => chooseFiles({ multiple: true })) }, "Choose files"),
        h("button", { type: "button", id: "import-folder", onclick: run(() => chooseFiles({ folder: true })) }, "Choose a folder")),
    ]);
  }

  /** Has the server read files, and adds the result to the project. */
  async importFiles(files, { map_kind = "box", replace = true, ...fields } = {}) {
    const wanted = fields.id ? files.filter((file) => !/\//.test(file.webkitRelativePath) || isOfRow(file, fields.id)) : files;
    const total = wanted.reduce((sum, file) => sum + file.size, 0);
    if (total > this.model.max_upload) {
      throw new Error(`${wanted.length} files with ${Math.round(total / 2 ** 20)} MB are too much: enter a row, or choose fewer files.`);
    }
    say("Reading …");
    const { canvas, num_frames, fps } = this.store.project;
    const imported = await api.import({ files: wanted, map_kind, canvas_width: canvas.width, canvas_height: canvas.height, num_frames, fps, ...fields });
    await this.#take(imported, replace);
    say([`${imported.title}: ${imported.trajectory.objects.length} objects.`, ...imported.notices].join(" "));
  }

  async #take({ trajectory, image, prompt, format, title }, replace) {
    const { project } = this.store;
    const decoded = image && await decodeImage(await (await fetch(`data:image/png;base64,${image}`)).blob(), `${format}.png`, this.model);
    const labels = format === "labels";
    const keeps = project.image && !decoded;
    const canvas = keeps ? project.canvas : trajectory.canvas;
    const aspect = (trajectory.canvas.width * canvas.height) / (trajectory.canvas.height * canvas.width);
    if (keeps && Math.abs(aspect - 1) > 0.03) {
      throw new Error(`The file is for an image of ${trajectory.canvas.width} × ${trajectory.canvas.height} pixels, which is another aspect ratio than this image of ${canvas.width} × ${canvas.height}. Load the right image first.`);
    }
    // Masks of another size are resized to the canvas.
    const objects = trajectory.objects.map((object) => ({ ...object, mask: object.mask && resized(object.mask, canvas.height, canvas.width) }));
    this.store.change(`Import ${title}`, (draft) => {
      if (decoded) Object.assign(draft, { image: decoded });
      if (prompt) draft.settings.prompt = prompt;
      draft.canvas = { height: canvas.height, width: canvas.width };
      takeTrajectory(draft, { ...trajectory, objects }, replace && !labels);
    });
    this.store.show({ frame: 0, selected: null });
  }

  showExport() {
    const written = this.formats.filter((one) => one.writes);
    const format = select("export-format", written.map((one) => [one.name, one.title]));
    format.value = "trajectory";
    const kind = select("export-kind", [["", "as previewed"], ...Object.entries(KINDS)]);
    const done = this.jobs.jobs.filter((job) => job.state === "done");
    const job = select("export-job", [["", "none"], ...done.map((one) => [one.id, `${one.name || one.id}, seed ${one.settings.seed}`])]);
    const [kindField, jobField] = [field("Maps show", kind), field("Video to include", job)];
    const [limits, command] = [h("p", { className: "hint" }), h("p", { className: "hint" })];
    const update = () => {
      const chosen = written.find((one) => one.name === format.value);
      kindField.hidden = !chosen.writes_maps;
      jobField.hidden = chosen.name !== "magicdata";
      limits.textContent = chosen.limits && `This format cannot express ${chosen.limits}.`;
      command.replaceChildren(...(chosen.name === "trajectory" ? ["To make the same video on the command line: ", h("code", {}, this.command())] : []));
    };
    format.addEventListener("change", update);
    update();
    showDialog("Export", [field("Format", format), limits, kindField, jobField, command], {
      action: "Download",
      submit: async () => {
        const { blob, name } = await this.export(format.value, { kind: kind.value, job: job.value });
        download(blob, name);
        say(`Saved ${name}.`);
        return true;
      },
    });
  }

  /** The project as a file in a format. */
  export(format, { kind = "", job = "" } = {}) {
    const { project } = this.store;
    const video = this.video.get();
    return api.export({
      format, job, name: project.name, prompt: project.settings.prompt,
      trajectory: jsonFile(toTrajectory(project), "trajectory.json"),
      height: video.height, width: video.width, num_frames: video.frames, fps: video.fps, map_kind: kind || video.mapKind,
      image: format === "magicdata" && project.image ? new File([project.image.blob], project.image.name) : null,
    });
  }

  /** The command that makes the same video. */
  command() {
    const { settings, image } = this.store.project;
    const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
    const options = [
      ["model", this.model.packaged ? null : quote(this.model.name)], ["image", image && quote(image.name)], ["trajectory", "trajectory.json"],
      ["prompt", settings.prompt && quote(settings.prompt)], ["adapter", settings.adapter], ["seed", settings.seed],
      ["steps", settings.num_inference_steps], ["num-frames", settings.num_frames], ["map-kind", settings.map_kind], ["guidance-scale", settings.guidance_scale],
      ["adapter-scale", settings.adapter_scale === 1 ? null : settings.adapter_scale],
      ["height", settings.size?.height], ["width", settings.size?.width],
    ];
    return ["flashmotion sample", ...options.filter(([, value]) => value !== null && value !== "" && value !== undefined).map(([name, value]) => `--${name} ${value}`)].join(" ");
  }
}

/** Whether a file of a MagicData folder is needed for a row. */
function isOfRow(file, id) {
  const path = file.webkitRelativePath;
  return path.endsWith(".csv") || path.split("/").some((part) => part.replace(/\.\w+$/, "") === id);
}
