// Playback at the frame rate of the video, and its controls.

import { $, icon } from "./dom.js";
import { EASE_NAMES, goToKeyframe, selectedTrack, setEase, toggleKeyframe, waitHere } from "./commands.js";
import { h } from "./dom.js";
import { keyframeAt, segmentAt, setFrames } from "./project.js";

export class Playback {
  constructor(store, video, model) {
    Object.assign(this, { store, video, model });
    $("#ease").replaceChildren(...EASE_NAMES.map((name) => h("option", { value: name }, name)));
    this.#listen();
    store.addEventListener("any", () => this.draw());
    this.draw();
  }

  toggle() {
    const { playing, frame } = this.store.view;
    const last = this.store.project.num_frames - 1;
    this.store.show({ playing: !playing, frame: !playing && frame === last ? 0 : frame });
    if (!playing) this.#run();
  }

  #run() {
    const { store } = this;
    const start = { time: performance.now(), frame: store.view.frame };
    const tick = (now) => {
      if (!store.view.playing) return;
      const count = store.project.num_frames;
      const passed = Math.floor(start.frame + (Math.max(0, now - start.time) * this.video.rate()) / 1000 + 1e-6);
      if (passed >= count && !store.view.loop) {
        store.show({ playing: false, frame: count - 1 });
        return;
      }
      store.show({ frame: passed % count });
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  draw() {
    const { project, view } = this.store;
    const last = project.num_frames - 1;
    const input = $("#frame");
    input.max = last;
    if (input !== document.activeElement) input.value = view.frame;
    if ($("#num-frames") !== document.activeElement) $("#num-frames").value = project.num_frames;
    const { fps } = this.video.get();
    const seconds = (frame) => (frame / this.video.rate()).toFixed(2);
    $("#seconds").textContent = `${seconds(view.frame)} / ${seconds(last)} s, ${fps} fps`;
    $("#frame-badge").textContent = view.recording ? `Recording: drag the object · frame ${view.frame}` : `Frame ${view.frame} / ${last}`;
    $("#frame-badge").classList.toggle("recording", view.recording);
    const play = $("#play");
    if (play.getAttribute("aria-pressed") !== String(view.playing)) {
      play.setAttribute("aria-pressed", String(view.playing));
      play.setAttribute("aria-label", view.playing ? "Pause" : "Play");
      play.replaceChildren(icon(view.playing ? "pause" : "play"));
    }
    const track = selectedTrack(this.store);
    $("#toggle-key").disabled = !track;
    $("#pause-here").disabled = !track || track.anchored;
    $("#ease").disabled = !track || track.locked || track.keyframes.length < 2;
    if (track) $("#ease").value = segmentAt(track, view.frame).ease;
    $("#toggle-key").setAttribute("aria-pressed", String(Boolean(track && keyframeAt(track, view.frame))));
    $("#onion").checked = view.onion;
    $("#loop").checked = view.loop;
  }

  #listen() {
    const { store } = this;
    const click = (id, action) => $(`#${id}`).addEventListener("click", action);
    click("play", () => this.toggle());
    click("to-start", () => store.show({ frame: 0, playing: false }));
    click("to-end", () => store.show({ frame: store.project.num_frames - 1, playing: false }));
    click("previous-key", () => goToKeyframe(store, -1));
    click("next-key", () => goToKeyframe(store, 1));
    click("toggle-key", () => toggleKeyframe(store));
    click("pause-here", () => waitHere(store));
    $("#frame").addEventListener("input", (event) => event.target.value !== "" && store.show({ frame: Number(event.target.value), playing: false }));
    $("#ease").addEventListener("change", (event) => setEase(store, event.target.value));
    $("#onion").addEventListener("change", (event) => store.show({ onion: event.target.checked }));
    $("#loop").addEventListener("change", (event) => store.show({ loop: event.target.checked }));
    $("#num-frames").addEventListener("change", (event) => {
      const count = Math.round(Number(event.target.value));
      if (!(count >= 1 && count <= 2000)) {
        event.target.value = store.project.num_frames;
        return;
      }
      store.change("Number of frames", (draft) => {
        setFrames(draft, count, true);
        draft.settings.num_frames = count === this.model.num_frames ? null : count;
      });
    });
  }
}
