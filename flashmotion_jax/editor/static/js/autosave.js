// Keeps the project of each session in the browser. A session is a tab: its id survives a reload, and
// tabs never overwrite each other's projects.

const [DATABASE, STORE] = ["flashmotion-editor", "projects"];
const KEY = "flashmotion-session";
const KEPT = 20;

function request(work) {
  return new Promise((resolve, reject) => {
    work.onsuccess = () => resolve(work.result);
    work.onerror = () => reject(work.error);
  });
}

async function database() {
  const opening = indexedDB.open(DATABASE, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { keyPath: "session" });
  return request(opening);
}

async function table(mode) {
  return (await database()).transaction(STORE, mode).objectStore(STORE);
}

/** The session id of this tab; a duplicated tab gets a new one. */
export async function openSession() {
  const kept = sessionStorage.getItem(KEY);
  const session = kept && (await holds(kept)) ? kept : newId();
  sessionStorage.setItem(KEY, session);
  if (session !== kept) await holds(session);
  return { session, copiedFrom: kept && kept !== session ? kept : null };
}

function newId() {
  return [...crypto.getRandomValues(new Uint8Array(8))].map((b) => b.toString(16).padStart(2, "0")).join("");
}

/** Locks a session for the lifetime of the tab; false if another tab has the lock. */
function holds(session) {
  if (!navigator.locks) return Promise.resolve(true); // unavailable on pages that are neither https nor local
  return new Promise((resolve) => {
    navigator.locks.request(`flashmotion-${session}`, { ifAvailable: true }, (lock) => {
      resolve(lock !== null);
      return lock && new Promise(() => {});
    });
  });
}

/** Saves a project, with the image as a Blob. */
export async function save(session, project) {
  const image = project.image && { name: project.image.name, blob: project.image.blob };
  const entry = { session, name: project.name, time: Date.now(), project: { ...project, image } };
  await request((await table("readwrite")).put(entry));
}

/** The saved project of a session, or null. */
export async function load(session) {
  return (await request((await table("readonly")).get(session)))?.project ?? null;
}

/** The saved projects, newest first; only the newest few are kept. */
export async function recent() {
  const entries = await request((await table("readonly")).getAll());
  entries.sort((a, b) => b.time - a.time);
  for (const { session } of entries.slice(KEPT)) await request((await table("readwrite")).delete(session));
  return entries.slice(0, KEPT);
}
