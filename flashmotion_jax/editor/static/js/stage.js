// The stage: the canvas for drawing and dragging with mouse, pen or fingers.

import { $ } from "./dom.js";
import { placement } from "./geometry.js";
import { beginDrag, cursorAt, panDrag } from "./gestures.js";
import { clamp } from "./numbers.js";
import { paintStage } from "./painting.js";

export class Stage {
  /**
   * @param {Store} store
   * @param {() => {height, width}} size - of the video, for the crop.
   */
  constructor(store, size) {
    Object.assign(this, { store, size });
    this.canvas = $("#stage");
    this.context = this.canvas.getContext("2d");
    this.extra = {};
    this.pointers = new Map();
    this.drag = null;
    this.spaceHeld = false;
    this.panned = false;
    this.redraw = this.redraw.bind(this);
    new ResizeObserver(() => this.#resize()).observe(this.canvas);
    store.addEventListener("any", () => this.request());
    this.#listen();
  }

  /** Redraws on the next animation frame. */
  request() {
    if (!this.waiting) this.waiting = requestAnimationFrame(this.redraw);
  }

  redraw() {
    this.waiting = 0;
    const { project, view } = this.store;
    paintStage(this.context, { project, view, place: this.place(), size: this.size(), extra: this.extra });
  }

  /** The placement of the canvas on the stage. */
  place() {
    const { clientWidth, clientHeight } = this.canvas;
    return placement({ width: clientWidth, height: clientHeight }, this.store.project.canvas, this.store.view);
  }

  setExtra(changes) {
    this.extra = { ...this.extra, ...changes };
    this.request();
  }

  /** Zooms the view about a point of the stage. */
  zoomBy(factor, point = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2]) {
    const { zoom, pan } = this.store.view;
    const next = clamp(zoom * factor, 0.4, 16);
    const before = this.place().toCanvas(point);
    this.store.show({ zoom: next });
    const [x, y] = this.place().toStage(before);
    this.store.show({ pan: [pan[0] + point[0] - x, pan[1] + point[1] - y] });
  }

  #resize() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.canvas.clientWidth * ratio);
    this.canvas.height = Math.round(this.canvas.clientHeight * ratio);
    this.redraw();
  }

  #point(event) {
    const bounds = this.canvas.getBoundingClientRect();
    return [event.clientX - bounds.left, event.clientY - bounds.top];
  }

  #listen() {
    const on = (type, listener) => this.canvas.addEventListener(type, listener);
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", (event) => this.#up(event, "end"));
    on("pointercancel", (event) => this.#up(event, "cancel"));
    on("pointerleave", () => this.setExtra({ brush: null }));
    on("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / 400), this.#point(event));
    });
    on("dblclick", (event) => {
      if (this.store.view.tool === "select" && !this.store.view.selected) this.store.show({ zoom: 1, pan: [0, 0] });
      event.preventDefault();
    });
  }

  #down(event) {
    if (event.button > 1) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.#point(event));
    if (this.pointers.size === 2) {
      // A second finger turns the drag into zooming and panning.
      this.drag?.cancel();
      this.drag = this.#pinch();
      return;
    }
    if (this.store.view.playing) this.store.show({ playing: false });
    const point = this.#point(event);
    const pans = event.button === 1 || this.spaceHeld;
    this.panned ||= this.spaceHeld;
    this.drag = pans ? panDrag(this, point) : beginDrag(this, point, event);
  }

  #move(event) {
    const point = this.#point(event);
    const { tool, brush } = this.store.view;
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, point);
    else this.canvas.style.cursor = this.spaceHeld ? "grab" : cursorAt(this, point);
    const paints = tool === "paint" || tool === "erase";
    if (paints || this.extra.brush) this.setExtra({ brush: paints ? { point, radius: brush / 2 } : null });
    if (this.drag) this.drag.move(point, event);
  }

  #up(event, outcome) {
    this.pointers.delete(event.pointerId);
    const { drag } = this;
    if (drag && this.pointers.size === 0) {
      this.drag = null;
      drag[outcome]();
    }
  }

  /** Cancels the current drag; returns whether there was one. */
  cancelDrag() {
    const { drag } = this;
    this.drag = null;
    drag?.cancel();
    return Boolean(drag);
  }

  #pinch() {
    const state = () => {
      const [a, b] = [...this.pointers.values()];
      return { center: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2], distance: Math.hypot(a[0] - b[0], a[1] - b[1]) };
    };
    let before = state();
    return {
      move: () => {
        if (this.pointers.size < 2) return;
        const now = state();
        const { pan } = this.store.view;
        this.store.show({ pan: [pan[0] + now.center[0] - before.center[0], pan[1] + now.center[1] - before.center[1]] });
        if (before.distance > 0) this.zoomBy(now.distance / before.distance, now.center);
        before = now;
      },
      end() {},
      cancel() {},
    };
  }
}
