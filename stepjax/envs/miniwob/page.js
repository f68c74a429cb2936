// Runs at the start of every MiniWoB++ page, before the page's own scripts.
//
// Gives the page a clock that moves only when the driver says so (animations and
// delayed menus are over when the next observation is taken, and a seed repeats), a
// keyboard focus of its own (a browser has one focus for all frames), and keeps it from
// leaving: no navigation, no dialogs, no new windows.
(() => {
  "use strict";
  if (window === window.top) return;

  // --- clock ---
  const RealDate = Date;
  const start = RealDate.UTC(2016, 10, 15, 12);
  let now = start;
  let serial = 0;
  const timers = new Map();
  const schedule = (fn, delay, args, every) => {
    if (typeof fn !== "function") return 0;
    const wait = Math.max(1, Number(delay) || 0);
    timers.set(++serial, { at: now + wait, fn, args, every: every ? wait : 0 });
    return serial;
  };
  const cancel = (id) => void timers.delete(id);
  window.setTimeout = (fn, delay, ...args) => schedule(fn, delay, args, false);
  window.setInterval = (fn, delay, ...args) => schedule(fn, delay, args, true);
  window.requestAnimationFrame = (fn) => schedule(() => fn(now - start), 16, [], false);
  window.clearTimeout = window.clearInterval = window.cancelAnimationFrame = cancel;
  performance.now = () => now - start;
  window.Date = new Proxy(RealDate, {
    construct: (target, args, made) =>
      Reflect.construct(target, args.length ? args : [now], made),
    apply: () => new RealDate(now).toString(),
    get: (target, key) => (key === "now" ? () => now : target[key]),
  });
  const advance = (milliseconds) => {
    const end = now + milliseconds;
    for (let fired = 0; fired < 5000; fired++) {
      let id = 0, due = null;
      for (const [key, timer] of timers) {
        if (timer.at <= end && (due === null || timer.at < due.at)) [id, due] = [key, timer];
      }
      if (due === null) break;
      now = Math.max(now, due.at);
      if (due.every) due.at += due.every;
      else timers.delete(id);
      try { due.fn.apply(window, due.args); } catch (error) { console.warn(error); }
    }
    now = Math.max(now, end);
  };

  // --- which elements react to a click ---
  const listeners = new WeakMap();
  const add = EventTarget.prototype.addEventListener;
  const remove = EventTarget.prototype.removeEventListener;
  EventTarget.prototype.addEventListener = function (type, listener, options) {
    if (type === "click" && this instanceof Element && listener) {
      if (!listeners.has(this)) listeners.set(this, new Set());
      listeners.get(this).add(listener);
    }
    return add.call(this, type, listener, options);
  };
  EventTarget.prototype.removeEventListener = function (type, listener, options) {
    if (type === "click") listeners.get(this)?.delete(listener);
    return remove.call(this, type, listener, options);
  };
  const clickable = (element) =>
    listeners.get(element)?.size > 0 || typeof element.onclick === "function";

  // --- focus ---
  let active = null;
  const focusable = (element) =>
    element.isConnected && !element.disabled &&
    (/^(INPUT|TEXTAREA|SELECT|BUTTON)$/.test(element.tagName) ||
      (element.tagName === "A" && element.hasAttribute("href")) ||
      element.hasAttribute("tabindex") || element.isContentEditable);
  const send = (element, type, bubbles, other) =>
    element.dispatchEvent(
      new FocusEvent(type, { bubbles, composed: true, relatedTarget: other }));
  const current = () => (active !== null && active.isConnected ? active : null);
  const blur = (next) => {
    const old = current();
    active = null;
    if (old === null) return;
    send(old, "blur", false, next);
    send(old, "focusout", true, next);
  };
  const focus = (element) => {
    if (current() === element || !focusable(element)) return;
    const old = current();
    blur(element);
    active = element;
    send(element, "focus", false, old);
    send(element, "focusin", true, old);
  };
  // A page that has the browser to itself, as on a phone, keeps the browser's focus.
  const ownsFocus = window.top.stepjaxOneFrame === true;
  if (!ownsFocus) {
    HTMLElement.prototype.focus = function () { focus(this); };
    HTMLElement.prototype.blur = function () { if (current() === this) blur(null); };
    Object.defineProperty(Document.prototype, "activeElement", {
      get() { return current() ?? this.body; },
    });
    Document.prototype.hasFocus = () => true;
  }

  // --- stay on the page ---
  window.alert = () => undefined;
  window.confirm = () => false;
  window.prompt = () => null;
  window.open = () => null;
  add.call(window, "click", (event) => {
    const link = event.target.closest?.("a[href]");
    if (link && !link.getAttribute("href").startsWith("#")) event.preventDefault();
  });
  add.call(window, "submit", (event) => event.preventDefault());
  add.call(document, "DOMContentLoaded", () => {
    const style = document.createElement("style");
    style.textContent =
      "#reward-display,#click-canvas,#sync-task-cover{display:none!important}";
    document.head.appendChild(style);
  });

  // A control that was disabled while it had the focus has lost it, though the browser
  // takes note only when it next draws.
  const focused = () => {
    const element = document.activeElement;
    return element?.matches(":disabled") ? document.body : element;
  };

  window.stepjaxPage = ownsFocus
    ? {
      advance, clickable, focus: (element) => element.focus(),
      blur: () => document.activeElement?.blur(), active: focused,
      forget: () => document.activeElement?.blur(),
    }
    : {
      advance, clickable, focus, blur: () => blur(null), active: current,
      forget: () => { active = null; },
    };
})();
