// What pages do better with script: placeholders, lists that go on by themselves, forms without a new page.
// Everything here also works without it, by links and forms.

import { paint } from "./thumbhash.js";

const status = document.getElementById("status");
document.documentElement.classList.add("scripted");

/** Shows each picture's placeholder until the picture is there. */
function placehold(root) {
  for (const shot of root.querySelectorAll(".shot[data-hash]")) {
    const image = shot.querySelector("img");
    if (!image || (image.complete && image.naturalWidth) || !shot.dataset.hash || shot.querySelector("canvas")) continue;
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-hidden", "true");
    if (!paint(canvas, shot.dataset.hash)) continue;
    shot.prepend(canvas);
    shot.classList.add("waiting");
    const shown = () => shot.classList.replace("waiting", "shown");
    image.addEventListener("load", shown, { once: true });
    image.addEventListener("error", shown, { once: true });
    // The picture is opaque once it is there, unless it has transparent parts: then it alone is to be seen.
    image.addEventListener("load", () => setTimeout(() => canvas.remove(), 400), { once: true });
  }
}

/** What moves may have transparent parts: the picture behind it goes when it is there. */
function move(root) {
  for (const image of root.querySelectorAll(".shot .moving")) {
    const moves = () => image.closest(".shot").classList.add("moves");
    if (image.complete && image.naturalWidth) moves();
    else image.addEventListener("load", moves, { once: true });
  }
}

function say(text) {
  if (status) status.textContent = text;
}

async function fetchPage(url, options = {}) {
  const answer = await fetch(url, { credentials: "same-origin", ...options });
  const type = answer.headers.get("Content-Type") || "";
  if (!type.startsWith("text/html")) throw new Error(`no page, but ${type}`);
  return { answer, page: new DOMParser().parseFromString(await answer.text(), "text/html") };
}

/** The next part of a list is put behind it when its end comes near; the link stays for those who use it. */
function goOn(link) {
  let busy = false;
  const load = async () => {
    if (busy) return;
    busy = true;
    try {
      const { answer, page } = await fetchPage(link.href);
      const items = page.getElementById("list");
      if (!answer.ok || !items) throw new Error("no list");
      const first = items.firstElementChild;
      placehold(items);
      move(items);
      document.getElementById("list").append(...items.children);
      const box = link.closest(".more");
      const focused = document.activeElement === link;
      const following = page.querySelector("a[data-more]");
      box.replaceChildren(...(following ? [following] : []));
      watch(box);
      if (focused) first?.querySelector("a")?.focus();
      say("More was loaded.");
    } catch {
      watcher.unobserve(link); // The link still works, as a link.
      busy = false;
    }
  };
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || busy) return;
    event.preventDefault();
    load();
  });
  link.load = load;
}

const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) if (entry.isIntersecting) entry.target.load();
  },
  { rootMargin: "1200px 0px" },
);

function watch(root) {
  for (const link of root.querySelectorAll("a[data-more]")) {
    goOn(link);
    // Comments go on by a click alone: a form stands behind them.
    if (!link.closest("#comments")) watcher.observe(link);
  }
}

/** A form whose page differs in one part: it is sent, and that part alone is replaced. */
document.addEventListener("submit", async (event) => {
  const form = event.target;
  const part = form.dataset.part;
  if (!part) return;
  event.preventDefault();
  if (form.dataset.sent) return;
  form.dataset.sent = "yes";
  const liked = form.classList.contains("like");
  const pressed = event.submitter;
  const fields = new URLSearchParams(new FormData(form));
  if (pressed?.name) fields.append(pressed.name, pressed.value);
  try {
    const { answer, page } = await fetchPage(pressed?.hasAttribute("formaction") ? pressed.formAction : form.action, {
      method: "POST",
      headers: { "X-Part": part },
      body: fields,
    });
    const fresh = page.getElementById(part);
    const old = document.getElementById(part);
    if (fresh && old) {
      const inside = old.contains(document.activeElement);
      old.replaceWith(fresh);
      for (const one of page.querySelectorAll("[data-fresh]")) document.getElementById(one.id)?.replaceWith(one);
      placehold(fresh);
      move(fresh);
      watch(fresh);
      const problem = fresh.querySelector("[role=alert]");
      const same = !problem && pressed?.value && fresh.querySelector(`button[value="${CSS.escape(pressed.value)}"]`);
      const next = same || fresh.querySelector(problem ? "textarea" : "button, textarea");
      if (inside && next) next.focus({ preventScroll: true });
      say(problem ? problem.textContent : liked ? next.ariaLabel : "Done.");
    } else if (answer.redirected) {
      location.assign(answer.url); // such as to where one logs in
    } else {
      complain(form, page.querySelector("main .empty p:not(.big)")?.textContent || "That did not work.");
    }
  } catch {
    complain(form, "There is no connection. Try again.");
  }
});

/** Says at a form why it was not taken; it can be sent again. */
function complain(form, text) {
  delete form.dataset.sent;
  let alert = form.querySelector("[role=alert]");
  if (!alert) {
    alert = document.createElement("p");
    alert.className = "alert";
    alert.setAttribute("role", "alert");
    form.prepend(alert);
  }
  alert.textContent = text;
}

/** Left and right go through photos where nothing is being written. */
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (event.target.closest?.("input, textarea, select, summary, [contenteditable]")) return;
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  const link = rel && document.querySelector(`.neighbours a[rel=${rel}]`);
  if (link) link.click();
});

placehold(document);
move(document);
watch(document);
