// The server's HTTP API, see /openapi.json.

/** Sends a request; an error response becomes an Error with the server's message. */
async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not respond. Is `flashmotion edit` still running?");
  }
  if (response.ok) return response;
  const text = await response.text();
  let message = text;
  try {
    message = JSON.parse(text).error;
  } catch {
    // Not JSON: the text itself is shown.
  }
  throw new Error(message || `${response.status} ${response.statusText}`);
}

function form(fields) {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value === null || value === undefined || value === "") continue;
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one instanceof File) data.append(name, one, one.webkitRelativePath || one.name);
      else if (one instanceof Blob) data.append(name, one, name);
      else data.append(name, String(one));
    }
  }
  return { method: "POST", body: data };
}

const json = async (path, options) => (await ask(path, options)).json();

/** JSON as a file of a form, because fields have a smaller size limit. */
export const jsonFile = (data, name) =>
  new File([JSON.stringify(data)], name, { type: "application/json" });

export const api = {
  model: () => json("/api/model"),
  formats: async () => (await json("/api/formats")).formats,
  size: ({ height, width }) => json(`/api/size?height=${height}&width=${width}`),
  start: () => json("/api/start"),
  startImage: async () => (await ask("/api/start/image")).blob(),
  checkImage: (image) => json("/api/image", form({ image })),
  asPng: async (image) => (await ask("/api/image?as=png", form({ image }))).blob(),
  select: (fields) => json("/api/select", form(fields)),
  import: (fields) => json("/api/import", form(fields)),
  camera: (fields) => json("/api/camera", form(fields)),
  export: async (fields) => {
    const response = await ask("/api/export", form(fields));
    const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "");
    return { blob: await response.blob(), name: name?.[1] ?? "trajectory" };
  },
  jobs: (session) => json(`/api/jobs${session ? `?session=${encodeURIComponent(session)}` : ""}`),
  submit: (fields) => json("/api/jobs", form(fields)),
  cancel: (id) => json(`/api/jobs/${id}/cancel`, { method: "POST" }),
  again: (id, session) =>
    json(`/api/jobs/${id}/again?session=${encodeURIComponent(session)}`, { method: "POST" }),
  remove: (id) => ask(`/api/jobs/${id}`, { method: "DELETE" }),
  jobFile: (id, file) => `/api/jobs/${id}/${file}`,
  jobJson: (id, file) => json(`/api/jobs/${id}/${file}`),
};
