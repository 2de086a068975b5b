// Creates the parts of the page.

import { api } from "./api.js";
import * as autosave from "./autosave.js";
import { showCameraPresets } from "./camera.js";
import { addAnchor, addCamera } from "./commands.js";
import { showHelp } from "./dialogs.js";
import { $, $$, attempt, say } from "./dom.js";
import { Exchange } from "./exchange.js";
import { Files } from "./files.js";
import { Generate } from "./generate.js";
import { Jobs } from "./jobs.js";
import { listenToKeys } from "./keys.js";
import { ObjectList } from "./objects.js";
import { Playback } from "./playback.js";
import { Preview } from "./preview.js";
import { newProject } from "./project.js";
import { Properties } from "./properties.js";
import { openResult } from "./result.js";
import { Stage } from "./stage.js";
import { Store } from "./store.js";
import { Timeline } from "./timeline.js";
import { VideoFacts } from "./video.js";
import { WarningList } from "./warnings.js";

async function begin() {
  const [model, formats] = await Promise.all([api.model(), api.formats()]);
  const { session, copiedFrom } = await autosave.openSession();
  $("#notice").textContent = model.notice ?? "";
  $("#notice").hidden = !model.notice;
  const store = new Store(newProject(model));
  const video = new VideoFacts(store, model);
  const stage = new Stage(store, () => video.get());
  video.addEventListener("size", () => stage.request());
  new Timeline(store);
  new ObjectList(store);
  new Properties(store);
  new WarningList(store, model, video);
  const playback = new Playback(store, video, model);
  const preview = new Preview(store, model, video);
  const jobs = new Jobs(session, {
    open: (job) => attempt(() => openResult(job, model)),
    restore: (job) => files.restoreJob(job),
  });
  const exchange = new Exchange(store, model, formats, video, jobs);
  const files = new Files(store, model, session, exchange);
  const generate = new Generate(store, model, video, jobs);
  const parts = { store, model, video, stage, playback, preview, jobs, exchange, files, generate, session };
  listen(parts);
  await attempt(() => files.begin(copiedFrom));
  window.editor = parts; // for tests and for debugging
  document.body.dataset.ready = "true";
}

function listen({ store, stage, playback, preview, jobs, exchange, files, generate }) {
  const step = (direction) => {
    const label = store[direction]();
    if (label) say(`${direction === "undo" ? "Undone" : "Redone"}: ${label}`);
  };
  const undo = () => step("undo");
  const redo = () => step("redo");
  const chooseTool = (tool) => {
    const onFirst = !["select", "box", "point"].includes(tool);
    store.show({ tool, recording: false, playing: false, ...(onFirst ? { frame: 0 } : {}) });
  };
  const click = (id, action) => $(`#${id}`).addEventListener("click", () => attempt(action));
  click("undo", undo);
  click("redo", redo);
  click("load-image", () => files.chooseImage());
  click("empty-image", () => files.chooseImage());
  click("open-project", () => files.chooseProject());
  click("save-project", () => files.save());
  click("more", () => files.showRecent());
  click("import", () => exchange.showImport());
  click("export", () => exchange.showExport());
  click("help", showHelp);
  click("add-camera", () => addCamera(store));
  click("camera-presets", () => showCameraPresets(store));
  click("add-anchor", () => addAnchor(store));
  click("zoom-in", () => stage.zoomBy(1.25));
  click("zoom-out", () => stage.zoomBy(0.8));
  click("zoom-fit", () => store.show({ zoom: 1, pan: [0, 0] }));
  click("record", () => store.show({ recording: !store.view.recording, tool: "select", playing: false }));
  for (const button of $$("[data-tool]")) button.addEventListener("click", () => chooseTool(button.dataset.tool));
  $("#brush").addEventListener("input", (event) => store.show({ brush: Number(event.target.value) }));
  $("#tolerance").addEventListener("input", (event) => store.show({ tolerance: Number(event.target.value) }));
  $("#speed").addEventListener("change", (event) => store.show({ speed: Number(event.target.value) }));
  const name = $("#project-name");
  name.addEventListener("input", () => store.change("Rename", (draft) => { draft.name = name.value; }, "name"));
  const panels = tabs((panel) => {
    if (panel === "preview") preview.request();
    if (panel === "history") attempt(() => jobs.refresh());
  });
  listenToKeys({
    store, stage, playback, files, undo, redo, chooseTool, showHelp,
    generate: () => { panels("generate"); attempt(() => generate.submit()); },
  });
  const draw = () => drawBars(store);
  store.addEventListener("any", draw);
  draw();
}

/** Updates the bars. */
function drawBars({ project, view, past, future }) {
  for (const button of $$("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === view.tool && !view.recording));
  $("#record").setAttribute("aria-pressed", String(view.recording));
  $("#brush-option").hidden = view.tool !== "paint" && view.tool !== "erase";
  $("#tolerance-option").hidden = view.tool !== "wand";
  $("#speed-option").hidden = !view.recording;
  $("#undo").disabled = !past.length;
  $("#redo").disabled = !future.length;
  $("#undo").title = past.length ? `Undo: ${past.at(-1).label} (Ctrl+Z)` : "Nothing to undo";
  $("#redo").title = future.length ? `Redo: ${future.at(-1).label} (Ctrl+Shift+Z)` : "Nothing to redo";
  $("#empty").hidden = Boolean(project.image || project.objects.length || view.tool !== "select");
  const name = $("#project-name");
  if (name !== document.activeElement) name.value = project.name;
  document.title = `${project.name} – FlashMotion editor`;
}

/** Tabs with arrow-key navigation; returns a function that shows a panel by name. */
function tabs(onShow) {
  const all = $$("[role=tab]");
  const show = (tab, focus) => {
    for (const one of all) {
      const chosen = one === tab;
      one.setAttribute("aria-selected", String(chosen));
      one.tabIndex = chosen ? 0 : -1;
      $(`#${one.getAttribute("aria-controls")}`).hidden = !chosen;
    }
    if (focus) tab.focus();
    onShow(tab.id.replace("tab-", ""));
  };
  all.forEach((tab, k) => {
    tab.addEventListener("click", () => show(tab, false));
    tab.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by) show(all[(k + by + all.length) % all.length], true);
    });
  });
  return (name) => show($(`#tab-${name}`), false);
}

begin().catch((error) => say(error.message, true));
