// Repeats a read while the page is visible. A hidden page asks for nothing.

const LONGEST_PAUSE = 15_000;

export class Poller {
  /**
   * @param {(signal: AbortSignal) => Promise<void>} read is called again `pause()` milliseconds after it has ended.
   * @param {() => number} pause milliseconds; `Infinity` for no further read.
   * @param {(error: Error) => void} failed hears of an error; the next read comes later after each further one.
   * @param {boolean} isStream ends a read when the page is hidden: a stream would go on for hours.
   */
  constructor(read, pause, failed, isStream = false) {
    this.read = read;
    this.pause = pause;
    this.failed = failed;
    this.isStream = isStream;
    this.current = new AbortController();
    this.errors = 0;
    this.timer = 0;
    this.stopped = new AbortController();
    this.running = false;
    this.isDue = true;
    const { signal } = this.stopped;
    document.addEventListener("visibilitychange", () => this.wake(), { signal });
    addEventListener("online", () => this.wake(), { signal });
  }

  start() {
    this.wake();
    return this;
  }

  stop() {
    this.stopped.abort();
    clearTimeout(this.timer);
  }

  /** Read now, or as soon as the page is visible. */
  wake() {
    if (document.hidden || this.stopped.signal.aborted) {
      clearTimeout(this.timer);
      if (this.isStream) this.current.abort();
      return;
    }
    if (this.running) this.isDue = true;
    else this.run();
  }

  async run() {
    clearTimeout(this.timer);
    this.running = true;
    this.isDue = false;
    this.current = new AbortController();
    const signal = AbortSignal.any([this.stopped.signal, this.current.signal]);
    try {
      await this.read(signal);
      this.errors = 0;
    } catch (error) {
      if (signal.aborted) return;
      this.errors += 1;
      this.failed(error);
    } finally {
      this.running = false;
      if (signal.aborted && !document.hidden && !this.stopped.signal.aborted) this.wake();
    }
    if (document.hidden || this.stopped.signal.aborted) return;
    const longer = this.errors ? Math.min(1000 * 2 ** this.errors, LONGEST_PAUSE) : 0;
    const pause = this.isDue ? 0 : Math.max(this.pause(), longer);
    if (Number.isFinite(pause)) this.timer = setTimeout(() => this.run(), pause);
  }
}
