// The timeline: a row for each track with a mark for each keyframe.

import { $, $$, h, say } from "./dom.js";
import { EASE_NAMES, moveKeyframe, nameOf, removeKeyframe, refuseCamera } from "./commands.js";
import { displayColor } from "./palette.js";
import { findTrack } from "./project.js";

const THUMB = 16; // width of the slider's thumb; its center is the current frame

export class Timeline {
  constructor(store) {
    this.store = store;
    this.body = $("#timeline");
    this.tracks = $("#tracks");
    this.scrub = $("#scrub");
    this.scrub.addEventListener("input", () => store.show({ frame: Number(this.scrub.value), playing: false }));
    this.tracks.addEventListener("pointerdown", (event) => this.#down(event));
    this.tracks.addEventListener("keydown", (event) => this.#key(event));
    this.tracks.addEventListener("dblclick", (event) => this.#addKey(event));
    store.addEventListener("any", () => this.request());
    new ResizeObserver(() => this.#ticks()).observe(this.scrub);
  }

  request() {
    if (!this.waiting) this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.draw(); });
  }

  draw() {
    const { project, view } = this.store;
    if (project !== this.shown?.project || view.selected !== this.shown.selected) this.#rows();
    const current = view.frame;
    for (const mark of $$(".key", this.tracks)) mark.classList.toggle("current", Number(mark.dataset.frame) === current);
    this.scrub.max = project.num_frames - 1;
    this.scrub.value = current;
    this.scrub.setAttribute("aria-valuetext", `frame ${current} of ${project.num_frames - 1}`);
    $("#playhead").style.left = `calc(var(--name-width) + ${this.#offset(current, "(100% - var(--name-width) - 12px)")})`;
  }

  /** The CSS position of a frame on a track of a width. */
  #offset(frame, width = "100%") {
    const part = frame / Math.max(this.store.project.num_frames - 1, 1);
    return `calc(${THUMB / 2}px + ${part} * (${width} - ${THUMB}px))`;
  }

  #rows() {
    const { project, view } = this.store;
    if (project.num_frames !== this.shown?.project.num_frames) this.#ticks();
    this.shown = { project, selected: view.selected };
    const focused = document.activeElement?.dataset?.mark;
    const all = [...project.objects].reverse();
    this.tracks.replaceChildren(
      ...(project.camera ? [this.#row(project.camera, "camera", "#ffd166")] : []),
      ...all.map((object) => this.#row(object, object.uid, displayColor(object))),
    );
    if (focused) $$(".key", this.tracks).find((mark) => mark.dataset.mark === focused)?.focus();
  }

  #row(track, uid, color) {
    const { project, view } = this.store;
    const name = nameOf(project, track);
    const keys = track.keyframes;
    const segments = keys.slice(0, -1).map((key, k) => h("button", {
      type: "button", className: `segment ${key.ease}`, tabIndex: -1,
      title: `${key.ease} from frame ${key.frame} to ${keys[k + 1].frame}; click for another`,
      ariaLabel: `${name}: motion ${key.ease} from frame ${key.frame} to ${keys[k + 1].frame}`,
      style: { left: this.#offset(key.frame), width: `calc(${this.#offset(keys[k + 1].frame)} - ${this.#offset(key.frame)})` },
      onclick: () => this.#cycleEase(uid, key.frame),
    }, (keys[k + 1].frame - key.frame) / project.num_frames > 0.07 ? key.ease : ""));
    const chosen = uid === view.selected;
    const marks = keys.map((key, k) => {
      const mark = h("button", {
        type: "button", className: "key", tabIndex: chosen || k === 0 ? 0 : -1,
        ariaLabel: `${name}: keyframe at frame ${key.frame}, then ${key.ease}`,
        title: `frame ${key.frame}: drag to move in time`, style: { left: this.#offset(key.frame) },
      });
      Object.assign(mark.dataset, { uid, frame: key.frame, mark: `${uid}#${k}` });
      return mark;
    });
    const swatch = h("i", { className: uid === "camera" ? "swatch camera" : "swatch" });
    if (uid !== "camera") swatch.style.background = color;
    const row = h("div", { className: `tl-row${chosen ? " selected" : ""}` },
      h("button", { type: "button", className: "tl-name", tabIndex: -1, title: name, onclick: () => this.store.show({ selected: uid }) }, swatch, h("span", {}, name)),
      h("div", { className: "tl-track" }, ...segments, ...marks));
    row.style.setProperty("--key", color);
    row.dataset.uid = uid;
    return row;
  }

  #cycleEase(uid, frame) {
    this.store.show({ selected: uid, frame });
    this.store.change("Motion", (draft) => {
      const key = findTrack(draft, uid).keyframes.find((one) => one.frame === frame);
      key.ease = EASE_NAMES[(EASE_NAMES.indexOf(key.ease) + 1) % EASE_NAMES.length];
      say(`Motion: ${key.ease}`);
    });
  }

  #frameAt(event, track) {
    const bounds = track.getBoundingClientRect();
    const part = (event.clientX - bounds.left - THUMB / 2) / (bounds.width - THUMB);
    return Math.round(part * (this.store.project.num_frames - 1));
  }

  #down(event) {
    const mark = event.target.closest(".key");
    const lane = event.target.closest(".tl-track");
    if (!lane || event.target.closest(".segment") || event.button) return;
    const { uid } = lane.parentElement.dataset;
    this.store.show({ selected: uid, playing: false });
    if (!mark) {
      this.store.show({ frame: this.#frameAt(event, lane) });
      return;
    }
    event.preventDefault();
    const from = Number(mark.dataset.frame);
    this.store.show({ frame: from });
    const track = findTrack(this.store.project, uid);
    if (track.locked || (uid === "camera" && from === 0)) return;
    this.#dragKey(event, uid, from, lane);
  }

  #dragKey(event, uid, from, lane) {
    const { store, tracks } = this;
    const bounds = lane.getBoundingClientRect();
    const fixed = { getBoundingClientRect: () => bounds }; // the row is recreated during the drag
    tracks.setPointerCapture(event.pointerId);
    store.begin("Move a keyframe in time");
    const move = (moved) => {
      const wanted = this.#frameAt(moved, fixed);
      let frame = from;
      store.update((draft) => { frame = moveKeyframe(findTrack(draft, uid), from, wanted, draft.num_frames - 1); });
      store.show({ frame });
    };
    const end = (ended) => {
      tracks.removeEventListener("pointermove", move);
      tracks.removeEventListener("pointerup", end);
      tracks.removeEventListener("pointercancel", end);
      if (ended.type === "pointerup") store.end();
      else store.cancel();
    };
    tracks.addEventListener("pointermove", move);
    tracks.addEventListener("pointerup", end);
    tracks.addEventListener("pointercancel", end);
  }

  #key(event) {
    const mark = event.target.closest(".key");
    if (!mark) return;
    const { uid } = mark.dataset;
    const frame = Number(mark.dataset.frame);
    if (event.key === "Enter" || event.key === " ") this.store.show({ selected: uid, frame });
    else if (event.key === "Delete" || event.key === "Backspace") removeKeyframe(this.store, uid, frame);
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") this.#moveBy(uid, frame, (event.key === "ArrowLeft" ? -1 : 1) * (event.shiftKey ? 5 : 1));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #moveBy(uid, frame, by) {
    if (findTrack(this.store.project, uid).locked) return;
    if (uid === "camera" && frame === 0) { refuseCamera(); return; }
    let to = frame;
    this.store.change("Move a keyframe in time", (draft) => { to = moveKeyframe(findTrack(draft, uid), frame, frame + by, draft.num_frames - 1); }, `time ${uid}`);
    this.store.show({ selected: uid, frame: to });
    say(`Keyframe at frame ${to}`);
  }

  #addKey(event) {
    const lane = event.target.closest(".tl-track");
    if (!lane || event.target.closest(".key, .segment")) return;
    $("#toggle-key").click();
  }

  #ticks() {
    const { num_frames: count } = this.store.project;
    const width = this.scrub.clientWidth || 600;
    const most = Math.max(2, Math.floor(width / 42));
    const step = [1, 2, 4, 5, 8, 10, 20, 40, 50, 100, 200, 500].find((candidate) => (count - 1) / candidate <= most) ?? 1000;
    const frames = [];
    for (let frame = 0; frame < count; frame += step) frames.push(frame);
    $("#ticks").replaceChildren(...frames.map((frame) => h("span", { className: "tick", style: { left: this.#offset(frame) } }, String(frame))));
  }
}
