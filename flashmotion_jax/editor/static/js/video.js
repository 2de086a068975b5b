// The size, length, frame rate and map kind of the requested video.

import { api } from "./api.js";
import { roundHalfEven } from "./numbers.js";

export class VideoFacts extends EventTarget {
  /** The server computes the size of the video for an image; its answers are cached. */
  constructor(store, model) {
    super();
    Object.assign(this, { store, model });
    this.fitted = new Map();
    store.addEventListener("project", () => this.#fit());
    this.#fit();
  }

  /** {height, width, resize, frames, fps, mapKind, pointSigma} */
  get() {
    const { project } = this.store;
    const { settings } = project;
    const size = settings.size ?? this.automaticSize();
    return {
      ...size,
      resize: this.model.resize,
      frames: settings.num_frames ?? this.model.num_frames,
      fps: this.model.fps,
      mapKind: settings.map_kind ?? this.model.map_kind,
      pointSigma: this.model.point_sigma,
    };
  }

  /** The size if the user chose none. */
  automaticSize() {
    const { project } = this.store;
    const { height, width } = this.model;
    if (!project.image) return { height, width };
    return this.fitted.get(keyOf(project.canvas)) ?? { height, width };
  }

  /** Converts a frame of the timeline to a frame of the video. */
  toVideo(frame) {
    return this.#scaled(frame, this.store.project.num_frames, this.get().frames);
  }

  toTimeline(frame) {
    return this.#scaled(frame, this.get().frames, this.store.project.num_frames);
  }

  /** Frames of the timeline per second of the video. */
  rate() {
    const { frames, fps } = this.get();
    return frames > 1 ? (fps * (this.store.project.num_frames - 1)) / (frames - 1) : fps;
  }

  #scaled(frame, from, to) {
    return from > 1 ? roundHalfEven((frame * (to - 1)) / (from - 1)) : 0;
  }

  async #fit() {
    const { canvas, image } = this.store.project;
    const key = keyOf(canvas);
    if (!image || this.fitted.has(key)) return;
    this.fitted.set(key, null);
    try {
      this.fitted.set(key, await api.size(canvas));
    } catch {
      this.fitted.delete(key); // retried after the next change
      return;
    }
    this.dispatchEvent(new Event("size"));
  }
}

const keyOf = ({ height, width }) => `${height}x${width}`;
