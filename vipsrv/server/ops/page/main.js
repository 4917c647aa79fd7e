"use strict";
// Starts the page: the theme, the token, the live figures and the place to try an image.

// The token that the server asks for: kept in this object only, so it is gone with the page.
class Tokens {
  #token = null;
  #resolve = null;

  constructor() {
    this.dialog = byId("token-dialog");
    byId("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#end(byId("token").value.trim() || null);
    });
    byId("token-cancel").addEventListener("click", () => this.#end(null));
    this.dialog.addEventListener("cancel", () => this.#end(null));
  }

  get has() {
    return this.#token !== null;
  }

  get headers() {
    return this.#token === null ? {} : { Authorization: `Bearer ${this.#token}` };
  }

  forget() {
    this.#token = null;
  }

  // Asks for a token; resolves with whether one was given.
  ask(fault) {
    this.#resolve?.(false); // whoever asked before, for an image that another one has replaced
    setText(byId("token-fault"), fault);
    byId("token").value = "";
    if (!this.dialog.open) this.dialog.showModal();
    return new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  #end(token) {
    byId("token").value = "";
    this.dialog.close();
    if (token !== null) this.#token = token;
    this.#resolve?.(token !== null);
    this.#resolve = null;
  }
}

function startTheme() {
  const themes = ["auto", "light", "dark"];
  const button = byId("theme");
  let theme = "auto";
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    setText(button, `Theme: ${theme}`);
  });
}

function startStream(dashboard, announce) {
  const showState = (state, silence) => {
    const stale = state === StreamState.STALE;
    setText(byId("state"), { connecting: "connecting", live: "live", stale: "no figures" }[state]);
    byId("state").dataset.state = document.body.dataset.state = state;
    byId("banner").hidden = !stale;
    if (stale) setText(byId("banner-text"), `What you see is ${duration(silence / 1000)} old. Reconnecting …`);
  };
  let told = StreamState.CONNECTING;
  new Stream("/events", {
    handlers: {
      history: (event) => dashboard.takeHistory(event),
      live: (event) => dashboard.takeLive(event),
      errors: (event) => dashboard.takeErrors(event),
    },
    onState: (state, silence) => {
      showState(state, silence);
      if (state !== told) announce(state === StreamState.LIVE ? "The live figures have begun." : "The live figures have stopped.");
      told = state;
    },
  });
}

function announcer() {
  const element = byId("announcer");
  return (text) => setText(element, text);
}

const announce = announcer();
startTheme();
startStream(new Dashboard(), announce);
new Lab({ tokens: new Tokens(), announce });
