"use strict";
// The stream of events, and whether it still comes.
//
//     CONNECTING ──event──► LIVE ──no event for 4 s, or an error──► STALE ──event──► LIVE
//
// The browser reconnects by itself after a broken connection, but not after a refusal, and it does not notice
// a connection over which nothing comes any more. So a stream that is stale is opened anew.

const StreamState = Object.freeze({ CONNECTING: "connecting", LIVE: "live", STALE: "stale" });

const STALE_MS = 4000;
const RETRY_MS = 3000;

class Stream {
  constructor(address, { handlers, onState }) {
    this.address = address;
    this.handlers = handlers;
    this.onState = onState;
    this.state = StreamState.CONNECTING;
    this.lastEvent = performance.now();
    this.openedAt = 0;
    this.open();
    setInterval(() => this.check(), 1000);
  }

  open() {
    this.source?.close();
    this.openedAt = performance.now();
    this.source = new EventSource(this.address);
    this.source.onerror = () => this.enter(StreamState.STALE);
    for (const [name, handle] of Object.entries(this.handlers)) {
      this.source.addEventListener(name, (event) => {
        this.lastEvent = performance.now();
        this.enter(StreamState.LIVE);
        handle(JSON.parse(event.data));
      });
    }
  }

  // Milliseconds since the last event.
  get silence() {
    return performance.now() - this.lastEvent;
  }

  check() {
    if (this.silence > STALE_MS) this.enter(StreamState.STALE);
    if (this.state !== StreamState.STALE) return;
    this.onState(this.state, this.silence);
    const closed = this.source.readyState === EventSource.CLOSED;
    const waited = performance.now() - this.openedAt;
    if ((closed && waited > RETRY_MS) || (waited > 3 * STALE_MS && this.silence > 3 * STALE_MS)) this.open();
  }

  enter(state) {
    if (state === this.state) return;
    this.state = state;
    this.onState(state, this.silence);
  }
}
