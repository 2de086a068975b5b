// The state of the project and of the view. Every change of the project goes through `change`, or
// through `begin`, `update` and `end` for a gesture; both are one undo step.

import { draftOf } from "./project.js";

const STEPS = 300;
/** Changes with the same merge key within this time, such as typing, are one undo step. */
const MERGE_MS = 900;

export class Store extends EventTarget {
  constructor(project) {
    super();
    this.project = project;
    this.view = {
      frame: 0, selected: null, tool: "select", playing: false, loop: true, onion: true,
      brush: 24, tolerance: 24, speed: 1, recording: false, zoom: 1, pan: [0, 0],
    };
    this.past = [];
    this.future = [];
    this.gesture = null;
    this.lastMerge = { key: null, time: 0 };
  }

  /** Changes a draft of the project; quick changes with the same `merge` key are one undo step. */
  change(label, edit, merge = null) {
    if (this.gesture) this.end();
    const draft = draftOf(this.project);
    if (edit(draft) === false) return;
    const now = Date.now();
    const merges = merge !== null && this.lastMerge.key === merge && now - this.lastMerge.time < MERGE_MS;
    if (!merges) this.#remember(label);
    this.lastMerge = { key: merge, time: now };
    this.#set(draft);
  }

  /** Begins a gesture, such as a drag. */
  begin(label) {
    if (this.gesture) this.end();
    this.gesture = { label, base: this.project };
  }

  /** Applies an edit to the project as it was when the gesture began. */
  update(edit) {
    if (!this.gesture) return;
    const draft = draftOf(this.gesture.base);
    edit(draft);
    this.#set(draft);
  }

  /** Ends the gesture, as one undo step if it changed the project. */
  end() {
    const { gesture } = this;
    this.gesture = null;
    if (!gesture || gesture.base === this.project) return;
    const result = this.project;
    this.project = gesture.base;
    this.#remember(gesture.label);
    this.lastMerge.key = null;
    this.#set(result);
  }

  /** Cancels the gesture and restores the project. */
  cancel() {
    const { gesture } = this;
    this.gesture = null;
    if (gesture) this.#set(gesture.base);
  }

  undo() {
    if (this.gesture) return this.cancel();
    return this.#step(this.past, this.future);
  }

  redo() {
    return this.#step(this.future, this.past);
  }

  /** Changes the state of the view, which is not saved: frame, selection, tool, ... */
  show(changes) {
    const last = this.project.num_frames - 1;
    const before = this.view;
    this.view = { ...before, ...changes };
    this.view.frame = Math.min(Math.max(Math.round(this.view.frame), 0), last);
    if (Object.keys(this.view).some((key) => this.view[key] !== before[key])) this.#notify("view");
  }

  #step(from, to) {
    if (!from.length) return null;
    const { label, project } = from.pop();
    to.push({ label, project: this.project });
    this.lastMerge.key = null;
    this.#set(project);
    return label;
  }

  #remember(label) {
    this.past.push({ label, project: this.project });
    if (this.past.length > STEPS) this.past.shift();
    this.future = [];
  }

  #set(project) {
    this.project = project;
    const { selected } = this.view;
    const gone = selected === "camera" ? !project.camera
      : selected && !project.objects.some((object) => object.uid === selected);
    if (gone) this.view = { ...this.view, selected: null };
    if (this.view.frame >= project.num_frames) this.view = { ...this.view, frame: project.num_frames - 1 };
    this.#notify("project");
  }

  #notify(type) {
    this.dispatchEvent(new Event(type));
    this.dispatchEvent(new Event("any"));
  }
}
