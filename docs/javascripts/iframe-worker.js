// Pages that are opened from the file system may not start workers. The search's script runs in a hidden frame there.
if (location.protocol === "file:") {
  const loaded = (page, url) => new Promise((done, failed) => {
    const script = Object.assign(page.createElement("script"), { src: url, onload: done, onerror: failed });
    page.body.appendChild(script);
  });

  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.body.appendChild(Object.assign(document.createElement("iframe"), { hidden: true }));
      const inside = frame.contentWindow, page = frame.contentDocument;
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = (...urls) =>
        urls.reduce((before, each) => before.then(() => loaded(page, each)), Promise.resolve());
      this.inside = inside;
      this.ready = loaded(page, url);
    }

    postMessage(data) { // in their order, once the script is there
      this.ready = this.ready.then(() => this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data })));
    }
  };
}
