// One upload: a ticket of the front end, then the file in pieces straight to the intake on the storage machine.

export const STATES = { waiting: "waiting", running: "running", finished: "finished", failed: "failed", refused: "refused" };

const PIECE_BYTES = 4 * 1024 * 1024;
const ATTEMPTS = 6;
const FIRST_WAIT_MS = 700;
const MOST_WAIT_MS = 10_000;
const MOST_ASKED_WAIT_MS = 60_000;
const QUIET_MS = 90_000;
const KEPT = "haystack-upload:";
const SPARE_SECONDS = 60;

/** Why an upload ended. forGood: another try would end the same. */
export class UploadProblem extends Error {
  constructor(message, forGood) {
    super(message);
    this.forGood = forGood;
  }
}

/**
 * Uploads a file and tells the id of its photo.
 * tell(bytes that are there, words about it or nothing) is called as it goes on.
 */
export async function send(file, about, tell) {
  const key = keyOf(file, about);
  let place = kept(key);
  let idempotencyKey = randomKey(key);
  let reached = 0;
  for (let attempt = 1; ; attempt++) {
    try {
      if (!place) {
        place = await ask(file, about, idempotencyKey);
        keep(key, place);
      }
      const photo = await transfer(file, place, tell);
      forget(key);
      return photo;
    } catch (problem) {
      if (place?.reached > reached) {
        reached = place.reached;
        attempt = 1; // It gets on, if slowly.
      }
      if (problem.gone || problem.forGood) {
        // The ticket has ended, the intake has lost what it had, or does not want it: nothing can be resumed.
        forget(key);
        place = null;
        idempotencyKey = randomKey(key);
      }
      if (problem.forGood || attempt >= ATTEMPTS) throw problem;
      tell(place?.reached || 0, `${problem.message} Trying again…`);
      const waitMs = Math.min(MOST_WAIT_MS, FIRST_WAIT_MS * 2 ** (attempt - 1)) * (0.75 + Math.random() / 2);
      await sleep(Math.max(waitMs, problem.waitMs || 0));
    }
  }
}

function randomKey(key) {
  return `${key}-${crypto.getRandomValues(new Uint32Array(2)).join("")}`;
}

/** The upload is the same when file and settings are: then it goes on where it stopped. */
function keyOf(file, about) {
  const text = JSON.stringify([file.name, file.size, file.lastModified, about, location.origin]);
  let hash = 0n;
  for (const letter of new TextEncoder().encode(text)) hash = BigInt.asUintN(64, (hash ^ BigInt(letter)) * 1099511628211n + 7n);
  return hash.toString(36);
}

function kept(key) {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT + key));
    if (found && found.expires > Date.now() / 1000 + SPARE_SECONDS) return found;
  } catch {
    // No storage, or nonsense in it: the upload begins anew.
  }
  return null;
}

function keep(key, place) {
  try {
    for (const name of Object.keys(localStorage)) {
      if (name.startsWith(KEPT) && !kept(name.slice(KEPT.length))) localStorage.removeItem(name);
    }
    localStorage.setItem(KEPT + key, JSON.stringify(place));
  } catch {
    // Without storage an upload is resumed as long as the page is open.
  }
}

function forget(key) {
  try {
    localStorage.removeItem(KEPT + key);
  } catch {
    // Nothing was kept.
  }
}

/** A ticket, and where the file goes with it. Asked again with the same key, the service gives the same ticket. */
async function ask(file, about, idempotencyKey) {
  let answer;
  try {
    answer = await fetch("/api/v1/uploads", {
      method: "POST",
      credentials: "same-origin",
      headers: { "Content-Type": "application/json", "Idempotency-Key": idempotencyKey },
      body: JSON.stringify({ size: file.size, name: file.name, ...about }),
    });
  } catch {
    throw new UploadProblem("No connection.", false);
  }
  if (!answer.ok) throw await refusal(answer);
  const { tusUrl, ticket, photo, expires } = await answer.json();
  const place = { tusUrl, ticket, photo, expires: secondsOf(expires) };
  const request = await call("POST", tusUrl, place, { headers: { "Upload-Length": String(file.size) } });
  if (request.status !== 201) throw problemOf(request);
  place.url = new URL(request.getResponseHeader("Location"), tusUrl).href;
  return place;
}

function secondsOf(expires) {
  return typeof expires === "number" ? expires : Date.parse(expires) / 1000;
}

async function refusal(answer) {
  let said = "";
  try {
    const found = await answer.json();
    said = found.detail || found.title || found.error || "";
  } catch {
    // An answer that is not ours, such as a proxy's.
  }
  const later = answer.status >= 500 || answer.status === 429;
  const problem = new UploadProblem(said || `The service answered ${answer.status}.`, !later);
  problem.waitMs = Math.min(MOST_ASKED_WAIT_MS, Number(answer.headers.get("Retry-After")) * 1000 || 0);
  return problem;
}

/**
 * One request to the intake. XMLHttpRequest, because fetch does not tell how much was sent.
 * It is given up when nothing happens for long, however long it takes as a whole.
 */
function call(method, url, place, { headers = {}, body = null, onProgress = () => {} } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let watch = setTimeout(() => request.abort(), QUIET_MS);
    const alive = () => {
      clearTimeout(watch);
      watch = setTimeout(() => request.abort(), QUIET_MS);
    };
    const fail = (words) => () => {
      clearTimeout(watch);
      reject(new UploadProblem(words, false));
    };
    request.open(method, url);
    request.setRequestHeader("Tus-Resumable", "1.0.0");
    request.setRequestHeader("Authorization", `Bearer ${place.ticket}`);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    if (body) {
      request.upload.addEventListener("progress", (event) => {
        alive();
        onProgress(event.loaded);
      });
    }
    request.addEventListener("load", () => {
      clearTimeout(watch);
      resolve(request);
    });
    request.addEventListener("error", fail("The connection broke."));
    request.addEventListener("abort", fail("The service does not answer."));
    request.send(body);
  });
}

function problemOf(request) {
  let said = "";
  try {
    said = JSON.parse(request.responseText).error || "";
  } catch {
    // An answer that is not the intake's.
  }
  const gone = [403, 404, 410].includes(request.status);
  const later = request.status >= 500 || [408, 409, 423, 429].includes(request.status);
  const problem = new UploadProblem(said || `The storage answered ${request.status}.`, !gone && !later);
  problem.gone = gone;
  return problem;
}

async function transfer(file, place, tell) {
  let offset = await offsetOf(file, place);
  while (offset < file.size) {
    const piece = file.slice(offset, offset + PIECE_BYTES);
    const last = offset + piece.size === file.size;
    const request = await call("PATCH", place.url, place, {
      headers: { "Upload-Offset": String(offset), "Content-Type": "application/offset+octet-stream" },
      body: piece,
      onProgress: (sent) => {
        const there = Math.min(file.size, offset + sent);
        tell(there, there < file.size ? `${Math.floor((100 * there) / file.size)} %` : last ? "Making the pictures…" : "");
      },
    });
    if (request.status !== 204) throw problemOf(request);
    offset = Number(request.getResponseHeader("Upload-Offset"));
    place.reached = offset;
  }
  return place.photo;
}

/** How much the intake has already; asked of all of it, the intake finishes what was begun. */
async function offsetOf(file, place) {
  const request = await call("HEAD", place.url, place);
  if (request.status !== 200 && request.status !== 204) throw problemOf(request);
  const offset = Number(request.getResponseHeader("Upload-Offset"));
  if (!Number.isSafeInteger(offset) || offset < 0 || offset > file.size) throw new UploadProblem("The storage lost its place.", false);
  return offset;
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
