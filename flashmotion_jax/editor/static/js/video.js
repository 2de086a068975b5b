// What video a project asks for: its size, length, rate and kind of maps, as the server will see it.

import { api } from "./api.js";
import { roundHalfEven } from "./numbers.js";

export class VideoFacts extends EventTarget {
  /** The size of a video follows from the image's, by the server's rule, which is asked once a size. */
  constructor(store, model) {
    super();
    Object.assign(this, { store, model });
    this.fitted = new Map();
    store.addEventListener("project", () => this.#fit());
    this.#fit();
  }

  /** {height, width, frames, fps, mapKind} */
  get() {
    const { project } = this.store;
    const { settings } = project;
    const size = settings.size ?? this.automaticSize();
    return {
      ...size,
      frames: settings.num_frames ?? this.model.num_frames,
      fps: this.model.fps,
      mapKind: settings.map_kind ?? this.model.map_kind,
    };
  }

  /** The size without a wish. */
  automaticSize() {
    const { project } = this.store;
    const { height, width } = this.model;
    if (!project.image) return { height, width };
    return this.fitted.get(keyOf(project.canvas)) ?? { height, width };
  }

  /** The frame of the video at a frame of the timeline, and the other way round. */
  toVideo(frame) {
    return this.#scaled(frame, this.store.project.num_frames, this.get().frames);
  }

  toTimeline(frame) {
    return this.#scaled(frame, this.get().frames, this.store.project.num_frames);
  }

  /** Frames of the timeline that go by in a second of the video. */
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
      this.fitted.delete(key); // asked again with the next change
      return;
    }
    this.dispatchEvent(new Event("size"));
  }
}

const keyOf = ({ height, width }) => `${height}x${width}`;
