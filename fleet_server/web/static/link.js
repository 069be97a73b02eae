// Tells whether the page still hears from the server: an old page must not look like a fresh one.
"use strict";
(() => {
  const tell = (state) => document.documentElement.setAttribute("data-link", state);
  const on = (name, state) => document.addEventListener(name, () => tell(state));
  on("htmx:sse:after:connection", "live");
  on("htmx:sse:error", "lost");
  on("htmx:error", "lost");
})();
