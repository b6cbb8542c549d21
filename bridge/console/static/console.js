// Keeps a page up to date: the server sends its contents anew, and only what differs is changed.
"use strict";

(() => {
  const address = document.body.dataset.live;
  const button = document.getElementById("pause");
  const connection = document.getElementById("connection");
  if (!address || !button) return;

  const contents = document.getElementById("contents");
  let stream = null;
  let latest = null;

  function keyOf(node) {
    return node.nodeType === Node.ELEMENT_NODE ? node.dataset.key || node.id || "" : "";
  }

  // A field that somebody fills in, or has chosen in, stays as it is.
  function isInUse(node) {
    return node.nodeType === Node.ELEMENT_NODE && node.tagName === "FORM" && !node.closest("[data-refresh]");
  }

  function sameKind(one, other) {
    return one.nodeType === other.nodeType && one.nodeName === other.nodeName && keyOf(one) === keyOf(other);
  }

  function update(old, made) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== made.nodeValue) old.nodeValue = made.nodeValue;
      return;
    }
    if (isInUse(old)) return;
    for (const { name } of [...old.attributes]) if (!made.hasAttribute(name) && name !== "class") old.removeAttribute(name);
    for (const { name, value } of made.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    if (!made.hasAttribute("class")) old.removeAttribute("class");
    updateChildren(old, made);
  }

  function updateChildren(old, made) {
    const keyed = new Map();
    for (const child of old.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
    let place = old.firstChild;
    for (const child of [...made.childNodes]) {
      const key = keyOf(child);
      const known = key ? keyed.get(key) : null;
      if (known && sameKind(known, child)) {
        if (known !== place) old.insertBefore(known, place);
        else place = place.nextSibling;
        update(known, child);
      } else if (!key && place && !keyOf(place) && sameKind(place, child)) {
        const next = place.nextSibling;
        update(place, child);
        place = next;
      } else {
        if (key && child.nodeName === "TR") child.classList.add("new");
        old.insertBefore(child, place);
      }
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  }

  function show(html) {
    latest = null;
    const made = document.createElement("template");
    made.innerHTML = `<main>${html}</main>`;
    updateChildren(contents, made.content.firstChild);
  }

  function say(text) {
    if (connection.textContent !== text) connection.textContent = text;
  }

  function start() {
    stream = new EventSource(address);
    stream.onopen = () => say("");
    stream.onmessage = (message) => {
      const html = JSON.parse(message.data);
      // A page in the middle of a selection waits: nobody can copy what moves.
      if (document.getSelection().isCollapsed) show(html);
      else latest = html;
    };
    stream.onerror = () => {
      say(stream.readyState === EventSource.CLOSED ? "Not kept up to date: reload the page" : "Connection lost; trying again");
    };
  }

  function stop() {
    if (stream) stream.close();
    stream = null;
  }

  function setPaused(paused) {
    button.setAttribute("aria-pressed", String(paused));
    button.querySelector("[data-label]").textContent = paused ? "Paused" : "Live";
    if (paused) stop();
    else start();
  }

  button.hidden = false;
  button.addEventListener("click", () => setPaused(button.getAttribute("aria-pressed") === "false"));
  document.addEventListener("selectionchange", () => {
    if (latest !== null && document.getSelection().isCollapsed) show(latest);
  });
  // A page that nobody sees asks for nothing.
  document.addEventListener("visibilitychange", () => {
    if (button.getAttribute("aria-pressed") === "true") return;
    if (document.hidden) stop();
    else if (!stream) start();
  });
  setPaused(false);
})();
