// Keyboard shortcuts. In text fields, only those with Ctrl are active.

import { $ } from "./dom.js";
import { drawBox } from "./gestures.js";
import { duplicate, goToKeyframe, nudge, removeSelected, restack, selectNext, selectedTrack, toggleFlag, toggleKeyframe } from "./commands.js";

const TOOLS = { v: "select", b: "box", t: "point", w: "wand", p: "paint", e: "erase" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function listenToKeys({ store, stage, playback, files, undo, redo, chooseTool, generate, showHelp }) {
  const withControl = {
    z: (event) => (event.shiftKey ? redo() : undo()), y: redo, s: () => files.save(), o: () => files.chooseProject(),
    d: () => duplicate(store), Enter: generate,
  };
  const flag = (name) => {
    const track = selectedTrack(store);
    if (track?.uid) toggleFlag(store, track.uid, name);
  };
  const plain = {
    " ": () => playback.toggle(), ",": () => goToKeyframe(store, -1), ".": () => goToKeyframe(store, 1),
    Home: () => store.show({ frame: 0 }), End: () => store.show({ frame: store.project.num_frames - 1 }),
    Delete: () => removeSelected(store), Backspace: () => removeSelected(store), k: () => toggleKeyframe(store),
    n: (event) => selectNext(store, event.shiftKey ? -1 : 1), h: () => flag("hidden"), l: () => flag("locked"),
    "[": () => restack(store, -1), "]": () => restack(store, 1), r: () => $("#record").click(),
    g: () => store.show({ onion: !store.view.onion }), o: togglePreviewMode, "?": showHelp,
    0: () => store.show({ zoom: 1, pan: [0, 0] }), "+": () => stage.zoomBy(1.25), "=": () => stage.zoomBy(1.25), "-": () => stage.zoomBy(0.8),
    Escape: () => {
      if (!stage.cancelDrag()) store.show(store.view.tool === "select" ? { selected: null, recording: false } : { tool: "select" });
    },
  };
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.ctrlKey || event.metaKey) {
      if (!withControl[key]) return;
      if (isText(event.target) && (key === "z" || key === "y" || key === "d")) return;
      event.preventDefault();
      withControl[key](event);
      return;
    }
    if (event.altKey || isText(event.target)) return;
    if (event.target.closest("button, summary, a, select") && (key === " " || key === "Enter")) return;
    if (key === " " && event.target === stage.canvas) {
      // Space moves the view while it is held with a drag, and plays otherwise.
      if (!event.repeat) Object.assign(stage, { spaceHeld: true, panned: false });
      event.preventDefault();
      return;
    }
    const drawn = { box: [0.4, 0.4, 0.6, 0.6], point: [0.5, 0.5, 0.5, 0.5] }[store.view.tool];
    if (key === "Enter" && event.target === stage.canvas && drawn) {
      drawBox(stage, drawn);
      return;
    }
    if (key in ARROWS && event.target === stage.canvas) {
      const step = event.shiftKey ? 10 : 1;
      const [dx, dy] = ARROWS[key];
      if (selectedTrack(store)) nudge(store, (dx * step) / 200, (dy * step) / 200);
      event.preventDefault();
      return;
    }
    if ((key === "ArrowLeft" || key === "ArrowRight") && !event.target.matches("input, [role=tab]")) {
      store.show({ frame: store.view.frame + (key === "ArrowLeft" ? -1 : 1) * (event.shiftKey ? 10 : 1), playing: false });
      event.preventDefault();
      return;
    }
    if (TOOLS[key]) chooseTool(TOOLS[key]);
    else if (plain[key]) {
      event.preventDefault();
      plain[key](event);
    }
  });
  document.addEventListener("keyup", (event) => {
    if (event.key !== " " || !stage.spaceHeld) return;
    stage.spaceHeld = false;
    if (!stage.panned) playback.toggle();
  });
}

function togglePreviewMode() {
  const select = $("#preview-mode");
  select.value = select.value === "map" ? "over" : "map";
  select.dispatchEvent(new Event("change"));
}

function isText(element) {
  return element.matches("textarea, select, input:not([type=range], [type=checkbox], [type=color])");
}
