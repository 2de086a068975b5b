// The queue and the history, refreshed while a job is active.

import { api } from "./api.js";
import { $, attempt, h, play, say } from "./dom.js";

const EVERY_MS = 400;
const ACTIVE = ["queued", "running"];
const STAGES = { text: "Prompt", encode: "Encode", denoise: "Denoise", decode: "Decode", save: "Save" };

export class Jobs {
  /** `open(job)` shows a result, `restore(job)` restores its project. */
  constructor(session, { open, restore }) {
    Object.assign(this, { session, open, restore, jobs: [], states: new Map(), previews: new Map() });
    $("#history-scope").addEventListener("change", () => attempt(() => this.refresh()));
    attempt(() => this.refresh());
  }

  async refresh() {
    clearTimeout(this.waiting);
    const all = $("#history-scope").value === "all";
    try {
      this.jobs = (await api.jobs(all ? null : this.session)).jobs;
      this.#announce();
      this.draw();
    } finally {
      const active = this.jobs.some((job) => ACTIVE.includes(job.state));
      if (active) this.waiting = setTimeout(() => this.refresh().catch((error) => say(error.message, true)), EVERY_MS);
    }
  }

  #announce() {
    for (const job of this.jobs) {
      const before = this.states.get(job.id);
      this.states.set(job.id, job.state);
      if (!before || before === job.state || ACTIVE.includes(job.state)) continue;
      if (job.state === "done") {
        say(`${job.name || "The video"} is done.`);
        if (job.session === this.session && !document.querySelector("dialog[open]")) this.open(job);
      } else if (job.state === "failed") say(job.error, true);
      else say(`${job.name || "The video"} was ${job.state}.`);
    }
  }

  draw() {
    const active = this.jobs.filter((job) => ACTIVE.includes(job.state));
    fill($("#queue"), active.map((job) => this.#card(job)).reverse());
    for (const id of this.previews.keys()) if (!active.some((job) => job.id === id)) this.previews.delete(id);
    const ended = this.jobs.filter((job) => !ACTIVE.includes(job.state));
    const known = JSON.stringify(ended.map((job) => [job.id, job.state]));
    $("#no-history").hidden = this.jobs.length > 0;
    if (known !== this.known) {
      this.known = known;
      fill($("#history"), ended.map((job) => h("li", {}, this.#card(job))));
    }
  }

  #card(job) {
    const act = (label, action, className = "") => {
      const button = h("button", { type: "button", className, onclick: () => attempt(action) }, label);
      button.dataset.act = `${job.id} ${label}`;
      return button;
    };
    const done = job.state === "done";
    const active = ACTIVE.includes(job.state);
    const again = async () => { await api.again(job.id, this.session); await this.refresh(); say("Submitted again."); };
    const card = h("article", { className: "job", ariaLabel: `${job.name || "job"}: ${job.state}` },
      h("div", { className: "head" }, h("b", {}, job.name || "Untitled"), h("span", { className: `state ${job.state}` }, stateOf(job))),
      this.#preview(job),
      done ? h("video", { src: api.jobFile(job.id, "result"), muted: true, loop: true, playsInline: true, preload: "metadata", onmouseenter: (event) => play(event.target), onmouseleave: (event) => event.target.pause(), onclick: () => this.open(job) }) : null,
      h("p", { className: "prompt" }, job.settings.prompt || "no prompt", ` · seed ${job.settings.seed} · ${job.settings.adapter}`),
      job.error ? h("p", { className: "error" }, job.error) : null,
      active ? progressOf(job) : null,
      h("div", { className: "buttons" },
        done ? act("Open", () => this.open(job)) : null,
        job.files.includes("project") ? act("Restore", () => this.restore(job)) : null,
        active ? act("Cancel", async () => { await api.cancel(job.id); await this.refresh(); }) : act(done ? "Again" : "Run again", again),
        done ? h("a", { href: api.jobFile(job.id, "result"), download: `${job.name || "video"}.mp4`, className: "download" }, "Download") : null,
        active ? null : act("Delete", async () => { await api.remove(job.id); await this.refresh(); }, "danger")));
    card.dataset.job = job.id;
    card.dataset.state = job.state;
    return card;
  }

  /** The video as it is predicted so far. The element is kept between refreshes, so that it plays on. */
  #preview(job) {
    if (!job.preview || !ACTIVE.includes(job.state)) return null;
    let video = this.previews.get(job.id);
    if (!video) {
      video = h("video", { className: "preview", muted: true, loop: true, autoplay: true, playsInline: true });
      this.previews.set(job.id, video);
    }
    if (video.dataset.step !== String(job.preview)) {
      video.dataset.step = job.preview;
      video.src = `${api.jobFile(job.id, "preview")}?step=${job.preview}`;
      video.setAttribute("aria-label", `Preview after ${job.preview} denoising steps`);
    }
    return video;
  }
}

function stateOf(job) {
  if (job.state === "queued") return job.ahead ? `queued, ${job.ahead} ahead` : "queued";
  if (job.state !== "done") return job.state;
  return `done in ${Object.values(job.seconds).reduce((sum, time) => sum + time, 0).toFixed(1)} s`;
}

/** A progress bar for each stage that has started. */
function progressOf(job) {
  const rows = Object.entries(job.progress).flatMap(([stage, [done, total]]) => [
    h("span", {}, STAGES[stage] ?? stage),
    h("progress", { max: total, value: done, ariaLabel: `${STAGES[stage] ?? stage}: ${done} of ${total}` }),
    h("span", { className: "muted" }, `${done} / ${total}`),
  ]);
  return h("div", { className: "stages" }, ...rows);
}

/** Replaces the content of a list and keeps the focus. */
function fill(list, children) {
  const focused = document.activeElement?.dataset?.act;
  list.replaceChildren(...children);
  if (focused) list.querySelector(`[data-act="${CSS.escape(focused)}"]`)?.focus();
}
