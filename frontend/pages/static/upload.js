// Uploads straight to the storage machine by tus 1.0 (https://tus.io/protocols/resumable-upload), a few at a time, each
// with its progress. What breaks is tried again from where it broke, also after the page was closed.

import { send, STATES } from "./tus.js";

const AT_ONCE = 3;
const MAX_FILES = 500;
const PUBLISH_ATTEMPTS = 15;
const form = document.getElementById("upload");
const chooser = document.getElementById("files");
const queue = document.getElementById("queue");
const rows = document.getElementById("rows");
const template = document.getElementById("row");
const startButton = document.getElementById("start");
const doneLink = document.getElementById("done");
const summary = document.getElementById("summary");
const mostBytes = Number(form.dataset.most);
const uploads = [];
let running = 0;

class Upload {
  constructor(file) {
    this.file = file;
    this.state = STATES.waiting;
    this.row = template.content.firstElementChild.cloneNode(true);
    this.title = this.find(".upload-title");
    this.title.value = titleOf(file.name);
    this.progress = this.find("progress");
    this.progress.setAttribute("aria-label", `Progress of ${file.name}`);
    this.find(".drop-out").setAttribute("aria-label", `Remove ${file.name}`);
    this.find(".again").setAttribute("aria-label", `Try ${file.name} again`);
    this.find(".drop-out").addEventListener("click", () => this.dropOut());
    this.find(".again").addEventListener("click", () => this.again());
    this.show(STATES.waiting, `${file.name}, ${sizeOf(file.size)}`);
    if (file.size > mostBytes) this.show(STATES.refused, `${file.name} has ${sizeOf(file.size)}; at most ${sizeOf(mostBytes)} are taken.`);
    if (file.size === 0) this.show(STATES.refused, `${file.name} is empty.`);
  }

  find(selector) {
    return this.row.querySelector(selector);
  }

  show(state, text) {
    this.state = state;
    this.row.className = `upload ${state}`;
    this.find(".upload-state").textContent = text;
    this.find(".again").hidden = state !== STATES.failed;
    this.find(".drop-out").hidden = state === STATES.finished || state === STATES.running;
    this.title.disabled = state === STATES.running || state === STATES.finished;
    summarise();
  }

  say(text) {
    this.find(".upload-state").textContent = text;
  }

  dropOut() {
    const beside = this.row.nextElementSibling || this.row.previousElementSibling;
    uploads.splice(uploads.indexOf(this), 1);
    this.row.remove();
    (beside?.querySelector(".drop-out:not([hidden])") || chooser).focus();
    queue.hidden = uploads.length === 0;
    summarise();
  }

  again() {
    this.show(STATES.waiting, "Waiting.");
    this.title.focus();
    go();
  }

  async run() {
    this.show(STATES.running, "Asking for a place…");
    try {
      const photo = await send(this.file, { title: this.title.value, ...shared() }, (sent, text) => {
        this.progress.value = (100 * sent) / this.file.size;
        if (text) this.say(text);
      });
      this.progress.value = 100;
      const see = this.find(".see");
      see.href = `/photos/${photo}`;
      see.setAttribute("aria-label", `See ${this.title.value || this.file.name}`);
      see.hidden = false;
      this.show(STATES.finished, inWords(await published(photo, (text) => this.say(text))));
    } catch (problem) {
      this.show(problem.forGood ? STATES.refused : STATES.failed, sentence(problem.message));
    }
  }
}

/** Asks until the photo is published, which follows its being stored within moments, mostly. */
async function published(photo, tell) {
  tell("Publishing…");
  for (let attempt = 1; attempt <= PUBLISH_ATTEMPTS; attempt++) {
    try {
      const answer = await fetch(`/upload/${photo}`, { credentials: "same-origin" });
      const found = await answer.json();
      if (found.there) return found;
    } catch {
      // It is stored; whether it is shown already can wait.
    }
    await new Promise((resolve) => setTimeout(resolve, 100 * attempt));
  }
  return { there: false, alike: 0 };
}

/** Services say their reasons in lower case, for logs. */
function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

function inWords({ there, alike }) {
  if (!there) return "Stored. It will be shown in a moment.";
  if (alike) return `Done. It looks like ${alike === 1 ? "another" : `${alike} others`} of your photos.`;
  return "Done.";
}

function shared() {
  const values = new FormData(form);
  return {
    tags: String(values.get("tags")).split(/[\s,]+/).filter(Boolean),
    visibility: values.get("visibility"),
    keepPlace: values.get("keep_place") === "yes",
  };
}

function titleOf(name) {
  const words = name.replace(/\.[^.]*$/, "").replace(/[_\s]+/g, " ").trim();
  // What cameras call their files is no title.
  return /^(img|dsc|dscn|dscf|pxl|mvimg|image|photo|p|_?mg)?[\s-]*\d[\d\s-]*(~\d+)?$/i.test(words) ? "" : words.slice(0, 200);
}

function sizeOf(bytes) {
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.max(1, Math.round(bytes / 1000))} KB`;
}

function summarise() {
  const count = (state) => uploads.filter((one) => one.state === state).length;
  const [done, failed, refused] = [count(STATES.finished), count(STATES.failed), count(STATES.refused)];
  const left = uploads.length - done - failed - refused;
  const parts = [`${done} of ${uploads.length} uploaded`];
  if (failed) parts.push(`${failed} failed`);
  if (refused) parts.push(`${refused} cannot be taken`);
  const text = parts.join(", ") + ".";
  if (summary.textContent !== text) summary.textContent = text;
  startButton.hidden = count(STATES.waiting) === 0;
  startButton.textContent = uploads.length > 1 ? "Upload all" : "Upload";
  doneLink.hidden = done === 0 || left > 0;
}

function add(files) {
  for (const file of files) {
    if (uploads.length >= MAX_FILES) {
      summary.textContent = `At most ${MAX_FILES} at a time; put in the others afterwards.`;
      break;
    }
    const upload = new Upload(file);
    uploads.push(upload);
    rows.append(upload.row);
    previews = previews.then(() => preview(upload));
  }
  queue.hidden = uploads.length === 0;
  summarise();
}

// One after the other: a phone has no memory for fifty decoded photos.
let previews = Promise.resolve();

async function preview(upload) {
  const canvas = upload.find("canvas");
  try {
    const image = await createImageBitmap(upload.file, { resizeHeight: 192, resizeQuality: "medium" });
    const side = Math.min(image.width, image.height);
    canvas.width = canvas.height = 192;
    canvas
      .getContext("2d")
      .drawImage(image, (image.width - side) / 2, (image.height - side) / 2, side, side, 0, 0, 192, 192);
    image.close();
  } catch {
    canvas.classList.add("without"); // A format that the browser does not know: the service may.
  }
}

function go() {
  while (running < AT_ONCE) {
    const following = uploads.find((one) => one.state === STATES.waiting);
    if (!following) return;
    running += 1;
    following.run().finally(() => {
      running -= 1;
      go();
    });
  }
}

chooser.addEventListener("change", () => {
  add(chooser.files);
  chooser.value = "";
});
startButton.addEventListener("click", () => {
  go();
  queue.querySelector("h2").tabIndex = -1;
  queue.querySelector("h2").focus();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  go();
});

const drop = document.getElementById("drop");
let depth = 0; // Entering a child leaves its parent.
addEventListener("dragenter", (event) => {
  event.preventDefault();
  depth += 1;
  drop.classList.add("over");
});
addEventListener("dragleave", () => {
  depth = Math.max(0, depth - 1);
  if (!depth) drop.classList.remove("over");
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  drop.classList.remove("over");
  add([...event.dataTransfer.files]);
});
addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length) add([...event.clipboardData.files]);
});
addEventListener("beforeunload", (event) => {
  if (running) event.preventDefault();
});
