"use strict";

/** Data of the page. It arrives as scripts that call `receive`, since a page on disk may load nothing else. */
const LongViT = {
  /** Path -> picture, of a self-contained page, as in a notebook. */
  pictures: {},
  received: new Map(),
  waiting: new Map(),

  receive(path, value) {
    this.received.set(path, value);
    this.waiting.get(path)?.resolve(value);
    this.waiting.delete(path);
  },

  /** Load the value of the script at `path`, once. */
  load(path) {
    if (this.received.has(path)) return Promise.resolve(this.received.get(path));
    if (!this.waiting.has(path)) {
      const entry = {};
      entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
      this.waiting.set(path, entry);
      const script = element("script", { src: path });
      script.onerror = () => {
        this.waiting.delete(path);
        entry.reject(new Error(`${path} could not be loaded. Either the viewer was stopped, or a file cannot be read; see its terminal.`));
      };
      script.onload = () => script.remove();
      document.head.append(script);
    }
    return this.waiting.get(path).promise;
  },

  /** Return the address of a picture. */
  picture(path) {
    return this.pictures[path] ?? path;
  },
};

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer;
}

/** Unpack integers from Python: row, column, row, column, ... */
const integers = (base64) => new Int32Array(bytes(base64));

/** Unpack scores from Python. */
const decimals = (base64) => new Float32Array(bytes(base64));
