// Runs in the page that holds the frames: one call acts in many frames and reads them.
"use strict";

const PAGE_WIDTH = 160;
const PAGE_HEIGHT = 210;
const SETTLE_MS = 1000; // of the page's own clock, after a reset and after an action
const NO_LIMIT_MS = 2 ** 31 - 1;
const SKIPPED_IDS = new Set(["query", "reward-display", "sync-task-cover", "click-canvas"]);
const SKIPPED_TAGS = new Set(["SCRIPT", "STYLE", "NOSCRIPT", "TEMPLATE", "BR", "HR"]);
const SHAPES = { rect: "rectangle shape", circle: "circle shape", polygon: "triangle shape",
  ellipse: "ellipse shape", path: "path", line: "line" };
const FIELD = /^(text|password|search|email|tel|url|number|date|time|month|input)$/;
const ICON_WORDS = { closethick: "x", close: "x" };
const DULL_WORDS = new RegExp("^(hide|hidden|active|clicked|selected|bold|icon|ui|state|" +
  "default|corner|all|widget|helper|clearfix|size|reset|expandable|collapsable|last|" +
  "button|accordion|header|triangle|caret|menu|[nesw]|[0-9]+)$");

const CONTROLS = "input,select,textarea,button";
const PARTS = "[role=tab],[role=menuitem]";

const clean = (text) => (text ?? "").replace(/\s+/g, " ").trim();

// ---------------------------------------------------------------- colours

const COLORS = { red: "255,0,0", green: "0,128,0", blue: "0,0,255", aqua: "0,255,255",
  black: "0,0,0", magenta: "255,0,255", yellow: "255,255,0", white: "255,255,255",
  gray: "128,128,128", olive: "128,128,0", lime: "0,255,0", purple: "128,0,128",
  orange: "255,165,0", pink: "255,192,203", navy: "0,0,128", teal: "0,128,128" };
const COLOR_NAMES = Object.fromEntries(Object.entries(COLORS).map(([k, v]) => [v, k]));
const HUES = [[15, "red"], [45, "orange"], [70, "yellow"], [165, "green"], [195, "aqua"],
  [260, "blue"], [290, "purple"], [345, "magenta"], [361, "red"]];

function colorWord(color, literal) {
  if (/^[a-z]+$/.test(literal ?? "") && literal !== "transparent") return literal;
  const part = color.match(/[\d.]+/g)?.map(Number);
  if (!part || part[3] === 0) return "";
  const exact = COLOR_NAMES[part.slice(0, 3).join(",")];
  if (exact) return exact;
  const [r, g, b] = part, high = Math.max(r, g, b), low = Math.min(r, g, b);
  if (high - low < 8) return high < 64 ? "black" : high > 224 ? "white" : "gray";
  const turn = high === r ? (g - b) / (high - low)
    : high === g ? 2 + (b - r) / (high - low) : 4 + (r - g) / (high - low);
  const hue = (turn * 60 + 360) % 360;
  return HUES.find(([limit]) => hue < limit)[1];
}

// ---------------------------------------------------------------- names

function classWords(element) {
  const names = [...element.classList];
  const words = (names.length ? names.join("-") : element.id).split(/[-_\s]+/);
  const kept = words.filter((word) => word && !DULL_WORDS.test(word))
    .map((word) => (element.classList.contains("ui-icon") && ICON_WORDS[word]) || word);
  return [...new Set(kept)].join(" ");
}

function pictureWords(element, style) {
  if (style.backgroundImage !== "none") return classWords(element);
  const icon = element.querySelector(".ui-icon");
  return icon ? classWords(icon) : "";
}

const shortText = (element) => {
  if (!element || element.matches(CONTROLS) || element.querySelector(CONTROLS)) return "";
  const text = clean(element.textContent ?? "");
  return text.length <= 40 ? text : "";
};

// The words beside a control: its label, or the nearest short text before it, or after.
function besideText(element) {
  for (let node = element, up = 0; up < 3 && node.parentElement; up++) {
    const before = node.previousElementSibling ? shortText(node.previousElementSibling)
      : clean(node.previousSibling?.data);
    if (before) return before.replace(/:$/, "");
    const after = node.previousElementSibling ? "" : shortText(node.nextElementSibling);
    if (after) return after;
    node = node.parentElement;
    if (node.id === "area") break;
  }
  return "";
}

function controlLabel(element) {
  const label = element.closest("label") ?? element.labels?.[0];
  return clean(element.getAttribute("aria-label") || (label && label.textContent) ||
    element.placeholder || element.title) || besideText(element);
}

// ---------------------------------------------------------------- reading a page

class Reader {
  constructor(view, maxWidgets) {
    this.view = view;
    this.page = view.stepjaxPage;
    this.active = this.page.active();
    this.maxWidgets = maxWidgets;
    this.found = [];
    const screen = [0, 0, PAGE_WIDTH, PAGE_HEIGHT];
    for (const child of view.document.body.children) this.walk(child, screen, null);
  }

  add(element, role, label, value, box, clip, extra = {}) {
    const left = Math.max(box.left, clip[0]), top = Math.max(box.top, clip[1]);
    const right = Math.min(box.right, clip[2]), bottom = Math.min(box.bottom, clip[3]);
    if (right - left < 2 || bottom - top < 2) return;
    const disabled = element.disabled === true ||
      element.closest?.(".ui-state-disabled,[aria-disabled=true]") != null;
    const flags = (extra.on ? 1 : 0) + (element === this.active ? 2 : 0) + (disabled ? 4 : 0);
    this.found.push({ element, role, label: clean(label).slice(0, 80),
      value: clean(value).slice(0, 80), box: [left, top, right, bottom], flags,
      row: Math.round((extra.top ?? (top + bottom) / 2) / 8), passive: role === "text",
      nameless: !label && /^(text_field|check_box|radio)$/.test(role) });
  }

  walk(element, clip, reacts) {
    if (SKIPPED_TAGS.has(element.tagName) || SKIPPED_IDS.has(element.id)) return;
    const style = this.view.getComputedStyle(element);
    if (style.display === "none" || style.visibility === "hidden") return;
    const box = element.getBoundingClientRect();
    if (style.overflowX !== "visible" && element.tagName !== "BODY") {
      clip = [Math.max(clip[0], box.left), Math.max(clip[1], box.top),
        Math.min(clip[2], box.right), Math.min(clip[3], box.bottom)];
      if (clip[2] - clip[0] < 2 || clip[3] - clip[1] < 2) return;
    }
    if (this.control(element, box, clip)) return;
    if (element.namespaceURI?.endsWith("svg") && element.tagName !== "svg" &&
        element.tagName !== "g") return this.shape(element, style, box, clip);
    const own = this.page.clickable(element) || element.matches(PARTS);
    if (own && !this.hasActive(element)) return this.button(element, style, box, clip);
    if (own) reacts = element;
    this.texts(element, style, clip, reacts);
  }

  hasActive(element) {
    for (const inner of element.getElementsByTagName("*")) {
      if (/^(INPUT|SELECT|TEXTAREA|BUTTON|A)$/.test(inner.tagName) ||
          inner.matches(PARTS) || this.page.clickable(inner)) return true;
    }
    return false;
  }

  control(element, box, clip) {
    const tag = element.tagName;
    if (tag === "INPUT" || tag === "TEXTAREA") {
      const type = tag === "INPUT" ? element.type : "text";
      if (type === "hidden") return true;
      if (type === "checkbox" || type === "radio") {
        const role = type === "radio" ? "radio" : "check_box";
        this.add(element, role, controlLabel(element), "", box, clip, { on: element.checked });
      } else if (FIELD.test(type)) {
        const label = controlLabel(element) || (tag === "TEXTAREA" ? "textarea" : "");
        this.add(element, "text_field", label, element.value, box, clip);
      } else if (type === "range") {
        this.add(element, "slider", controlLabel(element), element.value, box, clip);
      } else this.add(element, "button", element.value || element.title, "", box, clip);
      return true;
    }
    if (tag === "SELECT") {
      const chosen = [...element.selectedOptions].map((option) => option.text).join(" ");
      this.add(element, "menu", controlLabel(element), chosen, box, clip, { top: box.top });
      const height = (box.bottom - box.top) / Math.max(1, element.options.length);
      [...element.options].forEach((option, i) => {
        const top = box.top + i * height;
        const slice = { left: box.left, right: box.right, top, bottom: top + Math.max(2, height) };
        this.add(option, "option", option.text, "", slice, clip,
          { on: option.selected, top: Math.max(top, box.top + 8) });
      });
      return true;
    }
    if (tag === "BUTTON" || (tag === "A" && !this.hasActive(element))) {
      this.button(element, this.view.getComputedStyle(element), box, clip);
      return true;
    }
    return false;
  }

  button(element, style, box, clip) {
    const first = element.getClientRects()[0] ?? box;
    const part = element.closest(PARTS);
    const inline = style.display === "inline";
    const text = clean(element.innerText ?? element.textContent).replace(/ ?[▾▸]/g, "");
    let role = "button";
    if (element.tagName === "BUTTON") role = "button";
    else if (part) role = part.getAttribute("role") === "tab" ? "tab" : "menu_item";
    else if (!text) role = "icon";
    else if (element.tagName === "A" || inline) role = "link";
    else if (element.closest("li")) role = "list_item";
    const picture = pictureWords(element, style);
    const title = clean(element.getAttribute("aria-label") || element.title);
    const color = text || title ? "" : colorWord(style.backgroundColor, element.style.backgroundColor);
    const label = text || title || color || picture || classWords(element);
    const on = part?.getAttribute("aria-selected") === "true" ||
      part?.getAttribute("aria-expanded") === "true" ||
      /\b(active|clicked|selected)\b/.test(element.className) ||
      /\b(active|collapsable)\b/.test(element.closest("li")?.className);
    this.add(element, role, label, picture === label ? "" : picture, first, clip, { on });
  }

  shape(element, style, box, clip) {
    const tag = element.tagName;
    const color = colorWord(style.fill, element.getAttribute("fill"));
    if (tag === "text") {
      const text = clean(element.textContent);
      const kind = /^\d$/.test(text) ? "digit" : /^[A-Za-z]$/.test(text) ? "letter" : "";
      const size = parseFloat(style.fontSize) >= 15 ? "large" : "small";
      this.add(element, "icon", kind ? `${size} ${color} ${kind} ${text}` : text, "", box, clip);
    } else if (SHAPES[tag]) {
      const size = Math.max(box.width, box.height) >= 15 ? "large" : "small";
      this.add(element, "icon", `${size} ${color} ${SHAPES[tag]}`, "", box, clip);
    }
  }

  texts(element, style, clip, reacts) {
    const role = reacts === null ? "text" : element.closest("li") ? "list_item" : "button";
    const picture = pictureWords(element, style);
    const row = element.closest("li");
    const on = row !== null && /\bcollapsable\b/.test(row.className);
    const labelled = element.tagName === "LABEL" && element.querySelector("input,select,textarea");
    for (const child of element.childNodes) {
      if (child.nodeType === 1) this.walk(child, clip, reacts);
      else if (child.nodeType === 3 && !labelled && /\S/.test(child.data)) {
        const range = this.view.document.createRange();
        range.selectNodeContents(child);
        const box = range.getClientRects()[0];
        const value = element.childElementCount ? "" : picture;
        if (box) this.add(element, role, child.data, value, box, clip, { on });
      }
    }
  }

  // Reading order, at most so many: plain text goes first when there are too many.
  list() {
    let widgets = this.found;
    for (let i = widgets.length - 1; i >= 0 && widgets.length > this.maxWidgets; i--) {
      if (widgets[i].passive) widgets.splice(i, 1);
    }
    widgets.sort((a, b) => a.row - b.row || a.box[0] - b.box[0]);
    widgets = widgets.slice(0, this.maxWidgets);
    const counts = {};
    for (const widget of widgets) {
      if (!widget.nameless) continue; // a control without a name goes by its place
      const place = (counts[widget.role] = (counts[widget.role] ?? 0) + 1);
      widget.label = place + (["st", "nd", "rd"][place - 1] ?? "th");
    }
    return widgets;
  }
}

function instruction(view) {
  const query = view.document.getElementById("query");
  for (const icon of query.querySelectorAll(".ui-icon")) icon.textContent = classWords(icon);
  const said = view.core.getUtterance(); // some pages name its fields beside it
  return clean(said?.utterance ?? said);
}

// ---------------------------------------------------------------- acting

const KEYS = { Enter: 13, Escape: 27, Tab: 9, Backspace: 8, ArrowUp: 38, ArrowDown: 40,
  ArrowLeft: 37, ArrowRight: 39, Delete: 46, Home: 36, End: 35, PageUp: 33, PageDown: 34 };

function key(view, target, type, name) {
  const code = KEYS[name] ?? (name.length === 1 ? name.toUpperCase().charCodeAt(0) : 0);
  const event = new view.KeyboardEvent(type, { key: name, bubbles: true, cancelable: true,
    composed: true, keyCode: code, which: code, view });
  return target.dispatchEvent(event);
}

function press(view, name) {
  const target = view.stepjaxPage.active() ?? view.document.body;
  const go = key(view, target, "keydown", name) && key(view, target, "keypress", name);
  if (go && name === "Enter" && target !== view.document.body) {
    if (target.tagName === "BUTTON" || target.tagName === "A") target.click();
    else target.form?.requestSubmit?.();
  }
  key(view, target, "keyup", name);
}

function mouse(view, target, type, point, extra = {}) {
  const Kind = type.startsWith("pointer") ? view.PointerEvent : view.MouseEvent;
  return target.dispatchEvent(new Kind(type, { bubbles: true, cancelable: true, composed: true,
    clientX: point[0], clientY: point[1], screenX: point[0], screenY: point[1], view,
    button: 0, buttons: type.endsWith("down") ? 1 : 0, detail: 1, ...extra }));
}

// Places in a widget a person would aim at: its middle, or what is not covered of it.
const AIMS = [[0.5, 0.5], [0.2, 0.2], [0.8, 0.2], [0.2, 0.8], [0.8, 0.8], [0.5, 0.1],
  [0.5, 0.9], [0.1, 0.5], [0.9, 0.5], [0.05, 0.05], [0.95, 0.05], [0.05, 0.95], [0.95, 0.95]];

function aim(view, { element, box }) {
  const points = AIMS.map(([x, y]) =>
    [box[0] + x * (box[2] - box[0]), box[1] + y * (box[3] - box[1])]);
  const free = points.find((point) => {
    const top = view.document.elementFromPoint(point[0], point[1]);
    return top !== null && element.contains(top);
  });
  return free ?? points[0];
}

function click(view, target, point, times = 1) {
  for (const type of ["pointerover", "mouseover", "pointermove", "mousemove"])
    mouse(view, target, type, point);
  for (let i = 1; i <= times; i++) {
    if (target.disabled) return;
    mouse(view, target, "pointerdown", point);
    if (mouse(view, target, "mousedown", point, { detail: i })) {
      let node = target;
      while (node && node !== view.document.body) {
        view.stepjaxPage.focus(node);
        if (view.stepjaxPage.active() === node) break;
        node = node.parentElement;
      }
      if (!node || node === view.document.body) view.stepjaxPage.blur();
    }
    mouse(view, target, "pointerup", point);
    mouse(view, target, "mouseup", point, { detail: i });
    mouse(view, target, "click", point, { detail: i });
    if (i === 2) mouse(view, target, "dblclick", point, { detail: 2 });
  }
}

function choose(view, option) {
  const list = option.closest("select");
  if (!list || list.disabled || option.disabled) return;
  view.stepjaxPage.focus(list);
  if (list.multiple) option.selected = !option.selected;
  else list.selectedIndex = option.index;
  for (const type of ["input", "change"])
    list.dispatchEvent(new view.Event(type, { bubbles: true }));
}

// The value a date or time field takes for what a person would type into it.
function fieldText(element, text) {
  const date = /^(\d\d)\/(\d\d)\/(\d{4})$/.exec(text);
  if (element.type === "date" && date) return `${date[3]}-${date[1]}-${date[2]}`;
  const time = /^(\d{1,2}):(\d\d) ?([AP])M$/i.exec(text);
  if (element.type === "time" && time) {
    const hour = (time[1] % 12) + (time[3].toUpperCase() === "P" ? 12 : 0);
    return `${String(hour).padStart(2, "0")}:${time[2]}`;
  }
  return text;
}

function type(view, widget, text) {
  const element = widget ? widget.element : view.stepjaxPage.active();
  if (!element || element.disabled || element.readOnly) return;
  view.stepjaxPage.focus(element);
  const field = element.tagName === "INPUT" && FIELD.test(element.type) ? "HTMLInputElement"
    : element.tagName === "TEXTAREA" ? "HTMLTextAreaElement" : "";
  if (!field || element.disabled) return; // focusing may have opened a dialog
  const last = text.slice(-1) || "Backspace";
  key(view, element, "keydown", last);
  key(view, element, "keypress", last);
  Object.getOwnPropertyDescriptor(view[field].prototype, "value").set
    .call(element, fieldText(element, text));
  element.dispatchEvent(new view.InputEvent("input", { bubbles: true, data: text }));
  key(view, element, "keyup", last);
  element.dispatchEvent(new view.Event("change", { bubbles: true }));
}

function scroll(view, widget, direction) {
  const can = (node) => node.scrollHeight > node.clientHeight + 4 && node.clientHeight > 20 &&
    (node.tagName === "TEXTAREA" || /auto|scroll/.test(view.getComputedStyle(node).overflowY));
  let target = widget?.element ?? null;
  while (target && !can(target)) target = target.parentElement;
  target ??= [...view.document.querySelectorAll("#area, #area *")].find(can) ??
    view.document.scrollingElement;
  target.scrollTop += direction * 0.8 * target.clientHeight;
  const seen = target === view.document.scrollingElement ? view.document : target;
  seen.dispatchEvent(new view.Event("scroll"));
}

function act(view, widgets, [kind, index, x, y, text, keys]) {
  const widget = index === null ? null : widgets[index];
  if (index !== null && !widget) return;
  if (kind === "TYPE") return type(view, widget, text);
  if (kind === "SCROLL_DOWN" || kind === "SCROLL_UP")
    return scroll(view, widget, kind === "SCROLL_DOWN" ? 1 : -1);
  if (kind === "ENTER") return press(view, "Enter");
  if (kind === "ESCAPE") return press(view, "Escape");
  if (kind === "PRESS") return keys.forEach((name) => press(view, name));
  const point = widget ? aim(view, widget)
    : x === null ? null : [x * PAGE_WIDTH, y * PAGE_HEIGHT];
  if (point === null) return;
  if (widget?.element.tagName === "OPTION") return choose(view, widget.element);
  const target = view.document.elementFromPoint(point[0], point[1]) ??
    widget?.element ?? view.document.body; // what a real pointer would hit
  if (kind === "CLICK") click(view, target, point);
  else if (kind === "DOUBLE_CLICK") click(view, target, point, 2);
  else if (kind === "TRIPLE_CLICK") click(view, target, point, 3);
  else if (kind === "RIGHT_CLICK") mouse(view, target, "contextmenu", point, { button: 2 });
  else if (kind === "MOVE") mouse(view, target, "mousemove", point);
}

// ---------------------------------------------------------------- slots and frames

// The pictures a page's style names, loaded: until then what shows them has no size.
function pictures(view) {
  const urls = new Set();
  for (const sheet of view.document.styleSheets) {
    if (sheet.href?.includes("/core/")) continue;
    for (const rule of sheet.cssRules)
      for (const [, url] of rule.cssText.matchAll(/url\("?([^")]+)"?\)/g))
        urls.add(new URL(url, sheet.href ?? view.document.baseURI).href);
  }
  return Promise.all([...urls].map((url) => {
    const image = new view.Image();
    image.src = url;
    return image.decode().then(() => image, () => image);
  }));
}

class Host {
  constructor(columns, numSlots, maxFrames, maxWidgets) {
    Object.assign(this, { columns, maxFrames, maxWidgets, clock: 0, frames: [] });
    this.slots = Array.from({ length: numSlots }, () => ({ frame: null, widgets: [] }));
  }

  async load(frame, page) {
    await this.open(frame, page);
    frame.pictures = await pictures(frame.element.contentWindow); // kept, so cached
    frame.page = page;
  }

  open(frame, page) {
    return new Promise((resolve, reject) => {
      const element = document.createElement("iframe");
      element.scrolling = "no";
      element.onload = () => {
        const view = element.contentWindow;
        if (view.core && view.genProblem && view.stepjaxPage) resolve();
        else reject(new Error(`${page} is not a MiniWoB++ page`));
      };
      frame.element?.remove();
      Object.assign(frame, { element, page: "" });
      element.src = `miniwob/${page}.html`;
      document.body.appendChild(element);
    });
  }

  // A frame that holds `page`: a free one, else a new one, else the longest unused.
  acquire(page) {
    const free = this.frames.filter((frame) => !frame.busy);
    let frame = free.find((one) => one.page === page);
    if (!frame && this.frames.length < this.maxFrames) {
      frame = { element: null, page: "", busy: true, used: 0, pictures: [] };
      this.frames.push(frame);
    }
    frame ??= free.reduce((a, b) => (a.used <= b.used ? a : b));
    frame.busy = true;
    return frame;
  }

  async resetOne(slot, page, seed) {
    const frame = this.acquire(page);
    frame.used = ++this.clock;
    try {
      if (frame.page !== page) await this.load(frame, page);
      try {
        this.begin(frame.element.contentWindow, seed);
      } catch (error) { // some pages only start cleanly when freshly loaded
        await this.load(frame, page);
        this.begin(frame.element.contentWindow, seed);
      }
    } catch (error) {
      Object.assign(frame, { busy: false, page: "" });
      throw error;
    }
    this.slots[slot].frame = frame;
    frame.element.style.left = (slot % this.columns) * PAGE_WIDTH + "px";
    frame.element.style.top = Math.floor(slot / this.columns) * PAGE_HEIGHT + "px";
  }

  begin(view, seed) {
    view.stepjaxPage.advance(SETTLE_MS); // what the last episode left pending
    view.stepjaxPage.forget();
    for (const field of view.document.querySelectorAll("input,textarea")) {
      field.value = field.defaultValue;
      field.checked = field.defaultChecked;
    }
    view.core.EPISODE_MAX_TIME = NO_LIMIT_MS;
    view.Math.seedrandom(String(seed));
    view.core.startEpisodeReal();
    view.stepjaxPage.advance(SETTLE_MS);
  }

  async reset(requests) {
    for (const [slot] of requests) {
      const state = this.slots[slot];
      if (state.frame) Object.assign(state.frame, { busy: false }).element.style.left = "-999px";
      Object.assign(state, { frame: null, widgets: [] });
    }
    const failed = await Promise.all(requests.map(([slot, page, seed]) =>
      this.resetOne(slot, page, seed).then(() => null, (error) => String(error))));
    return JSON.stringify(requests.map(([slot], i) =>
      failed[i] === null ? this.look(slot) : [-1, failed[i], ""]));
  }

  step(requests) {
    return JSON.stringify(requests.map(([slot, ...action]) => {
      try {
        const { frame, widgets } = this.slots[slot];
        const view = frame.element.contentWindow;
        act(view, widgets, action);
        view.stepjaxPage.advance(SETTLE_MS);
      } catch (error) {
        return [-1, String(error), ""];
      }
      return this.look(slot);
    }));
  }

  look(slot) {
    try {
      const state = this.slots[slot];
      const view = state.frame.element.contentWindow;
      state.widgets = new Reader(view, this.maxWidgets).list();
      const rows = state.widgets.map((widget) => [widget.role, widget.label, widget.value,
        ...widget.box.map((edge, i) =>
          Math.round((1000 * edge) / (i % 2 ? PAGE_HEIGHT : PAGE_WIDTH)) / 1000), widget.flags]);
      const seen = JSON.stringify([instruction(view), rows]);
      return [view.WOB_DONE_GLOBAL ? 1 : 0, view.WOB_RAW_REWARD_GLOBAL, seen];
    } catch (error) {
      return [-1, String(error), ""];
    }
  }
}
