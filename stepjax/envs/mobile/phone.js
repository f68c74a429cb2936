// Runs in the page that is the phone's screen: status bar, launcher, one app per episode.
// Loaded after host.js, whose frames and readers it uses. Coordinates are CSS pixels.
"use strict";

window.stepjaxOneFrame = true; // one frame is in use at a time: it has the real focus

const MARK = "F24"; // a key no page knows: once it arrives, what came before it has
const LATEST_MS = 3000; // a mark that has not arrived by then does not come
const PICKED = "select,input[type=date],input[type=time],input[type=month],input[type=color]";

class PhoneReader extends Reader {
  control(element, box, clip) {
    if (element.tagName !== "SELECT") return super.control(element, box, clip);
    const chosen = [...element.selectedOptions].map((option) => option.text).join(" ");
    this.add(element, "menu", controlLabel(element), chosen, box, clip, { top: box.top });
    return true; // its options are in a dialog
  }
}

class Phone extends Host {
  constructor(width, height, frames, widgets, app, others) {
    super(1, 1, frames, widgets);
    Object.assign(this, { width, height, app, screen: app, select: null, widgets: [] });
    this.listening = new WeakSet();
    const style = document.documentElement.style;
    this.top = document.getElementById("bar").getBoundingClientRect().bottom;
    this.scale = Math.min(width / PAGE_WIDTH, (height - this.top - 24) / PAGE_HEIGHT);
    this.left = (width - this.scale * PAGE_WIDTH) / 2;
    for (const name of ["top", "left", "scale"])
      style.setProperty("--" + name, name === "scale" ? this.scale : this[name] + "px");
    this.makeIcons([app, ...others].sort());
    this.listen(window);
    document.getElementById("dialog").addEventListener("click", (event) => this.pick(event));
    this.show(app);
  }

  // ---------------------------------------------------------------- screens

  makeIcons(names) {
    const home = document.getElementById("home");
    for (const name of names) {
      const icon = document.createElement("button");
      const hue = [...name].reduce((sum, letter) => sum + 37 * letter.charCodeAt(0), 0) % 360;
      icon.innerHTML = `<i style="background:hsl(${hue} 55% 50%)">${name[0]}</i>`;
      icon.append(name);
      icon.dataset.app = name;
      icon.addEventListener("click", () => this.show(name));
      home.append(icon);
    }
  }

  show(name) { // "" is the launcher
    this.close();
    this.screen = name;
    document.body.dataset.screen = name === "" ? "home" : name === this.app ? "task" : "other";
    document.getElementById("bar").textContent = name;
    document.activeElement?.blur?.();
  }

  launch(name) {
    const wanted = name.trim().toLowerCase();
    const icons = [...document.querySelectorAll("#home button")];
    const found = icons.find((icon) => icon.dataset.app.toLowerCase() === wanted);
    if (found) this.show(found.dataset.app);
  }

  back() {
    if (this.select) this.close();
    else this.show("");
  }

  // Android shows a list of choices in a dialog of its own, and so does this.
  choose(select) {
    if (select.disabled) return;
    this.select = select;
    const list = document.querySelector("#dialog ul");
    list.replaceChildren(...[...select.options].map((option) => {
      const item = document.createElement("li");
      item.textContent = option.text;
      item.classList.toggle("on", option.selected);
      return item;
    }));
    document.querySelector("#dialog footer").hidden = !select.multiple;
    document.body.dataset.dialog = select.multiple ? "many" : "one";
    list.scrollTop = 0;
  }

  pick(event) {
    const item = event.target.closest("li");
    if (event.target.id === "dialog" || event.target.id === "done") return this.close();
    if (!item || !this.select) return;
    const items = [...item.parentElement.children], { select } = this;
    if (select.multiple) item.classList.toggle("on");
    else items.forEach((one) => one.classList.toggle("on", one === item));
    items.forEach((one, i) => { select.options[i].selected = one.classList.contains("on"); });
    const view = select.ownerDocument.defaultView;
    for (const type of ["input", "change"])
      select.dispatchEvent(new view.Event(type, { bubbles: true }));
    if (!select.multiple) this.close();
  }

  close() {
    this.select = null;
    delete document.body.dataset.dialog;
  }

  // ---------------------------------------------------------------- waiting for touches

  listen(view) {
    if (this.listening.has(view)) return;
    this.listening.add(view);
    for (const type of ["keydown", "keyup"])
      view.addEventListener(type, (event) => {
        if (event.key !== MARK) return;
        event.stopImmediatePropagation();
        if (type === "keyup") this.arrive();
      }, true);
    if (view === window) return;
    // What would open a window of the browser's own opens ours, or takes the focus.
    view.addEventListener("touchend", (event) => {
      const picked = event.target.closest?.(PICKED);
      if (!picked) return;
      event.preventDefault();
      if (picked.tagName === "SELECT") this.tapped = picked;
      else picked.focus();
    }, { capture: true, passive: false });
  }

  arrive() {
    this.arrived = true;
    this.go?.();
  }

  // Resolves once all input sent before the mark has been dealt with.
  async quiet() {
    if (!this.arrived) {
      await Promise.race([new Promise((go) => { this.go = go; }), this.rest(LATEST_MS)]);
      await new Promise((go) => { // a task of its own, without a timer's delay
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = go;
        port2.postMessage(0);
      });
    }
    this.arrived = false;
    if (this.tapped) this.choose(this.tapped);
    this.tapped = null;
  }

  rest(milliseconds) {
    return new Promise((go) => setTimeout(go, milliseconds));
  }

  // ---------------------------------------------------------------- acting

  get view() {
    return this.slots[0].frame.element.contentWindow;
  }

  spot(index) {
    const widget = this.widgets[index];
    if (!widget) return null;
    const { box, inPage } = widget;
    if (!inPage) return [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
    const [x, y] = aim(this.view, { element: widget.element, box: widget.pageBox });
    return [this.left + this.scale * x, this.top + this.scale * y];
  }

  press(kind, text) {
    if (kind === "HOME") this.show("");
    else if (kind === "BACK") this.back();
    else if (kind === "OPEN_APP") this.launch(text);
  }

  // Ready for text: its field has the focus, and what it holds is selected.
  async field(text, replace) {
    await this.quiet();
    const element = this.screen === this.app ? this.view.document.activeElement : null;
    const fits = element && !element.disabled && !element.readOnly &&
      (element.tagName === "TEXTAREA" || (element.tagName === "INPUT" && FIELD.test(element.type)));
    if (!fits) return false;
    if (element.matches(PICKED)) {
      element.value = fieldText(element, text);
      for (const type of ["input", "change"])
        element.dispatchEvent(new this.view.Event(type, { bubbles: true }));
      return false;
    }
    if (replace) element.select();
    return true;
  }

  // Middle, width and height of what scrolls under a widget, a place, or anywhere.
  area(index, x, y) {
    if (this.select) return this.rectangle(document.querySelector("#dialog ul"), 1, [0, 0]);
    if (this.screen !== this.app) return null;
    const { view, scale, left, top } = this;
    const can = (node) => node.nodeType === 1 && node.clientHeight > 20 &&
      (node.scrollHeight > node.clientHeight + 4 || node.scrollWidth > node.clientWidth + 4) &&
      (node.tagName === "TEXTAREA" || /auto|scroll/.test(view.getComputedStyle(node).overflow));
    let target = this.widgets[index]?.element ??
      (x === null ? null : view.document.elementFromPoint((x - left) / scale, (y - top) / scale));
    while (target && !can(target)) target = target.parentElement;
    target ??= [...view.document.querySelectorAll("#area, #area *")].find(can) ?? null;
    return target && this.rectangle(target, scale, [left, top]);
  }

  rectangle(element, scale, [left, top]) {
    const box = element.getBoundingClientRect();
    return [left + scale * (box.left + box.width / 2), top + scale * (box.top + box.height / 2),
      scale * element.clientWidth, scale * element.clientHeight];
  }

  // ---------------------------------------------------------------- seeing

  async open(frame, page) {
    await super.open(frame, page);
    this.listen(frame.element.contentWindow);
  }

  async start(page, seed, screen) {
    window.focus(); // a frame that was removed may have taken the focus along
    this.show(this.app);
    const reply = JSON.parse(await this.reset([[0, page, seed]]))[0];
    if (reply[0] < 0) return JSON.stringify(reply);
    this.show(screen);
    return this.see();
  }

  async settle(frames = 0) {
    await this.quiet();
    for (; frames > 0; frames--) await new Promise(requestAnimationFrame);
    return this.pass();
  }

  // The page's clock moves on by what an action takes.
  pass() {
    try {
      this.view.stepjaxPage.advance(SETTLE_MS);
    } catch (error) {
      return JSON.stringify([-1, String(error), ""]);
    }
    return this.see();
  }

  see() {
    return JSON.stringify(this.look());
  }

  look() {
    try {
      this.widgets = this.select ? this.dialogWidgets() : this.screen === this.app
        ? this.pageWidgets() : this.iconWidgets();
      const size = [this.width, this.height, this.width, this.height];
      const rows = this.widgets.map((widget) => [widget.role, widget.label, widget.value,
        ...widget.box.map((edge, i) =>
          Math.round(1e4 * Math.min(1, Math.max(0, edge / size[i]))) / 1e4), widget.flags]);
      return [this.view.WOB_DONE_GLOBAL ? 1 : 0, this.view.WOB_RAW_REWARD_GLOBAL,
        JSON.stringify([instruction(this.view), rows])];
    } catch (error) {
      return [-1, String(error), ""];
    }
  }

  pageWidgets() {
    const { scale, left, top } = this;
    return new PhoneReader(this.view, this.maxWidgets).list().map((widget) => ({
      ...widget, inPage: true, pageBox: widget.box,
      box: widget.box.map((edge, i) => (i % 2 ? top : left) + scale * edge),
    }));
  }

  iconWidgets() {
    if (this.screen) return [this.shellWidget(document.getElementById("empty"), "text")];
    return [...document.querySelectorAll("#home button")]
      .map((icon) => this.shellWidget(icon, "icon", icon.dataset.app));
  }

  dialogWidgets() {
    const list = document.querySelector("#dialog ul"), clip = list.getBoundingClientRect();
    const shown = [...list.children].filter((item) => {
      const box = item.getBoundingClientRect();
      return box.top > clip.top - box.height / 2 && box.bottom < clip.bottom + box.height / 2;
    });
    const found = shown.map((item) => this.shellWidget(item, "option"));
    if (this.select.multiple) found.push(this.shellWidget(document.getElementById("done"), "button"));
    return found.slice(0, this.maxWidgets);
  }

  shellWidget(element, role, label = element.textContent) {
    const box = element.getBoundingClientRect();
    return { role, label: clean(label), value: "", box: [box.left, box.top, box.right, box.bottom],
      flags: element.classList.contains("on") ? 1 : 0, inPage: false, element };
  }
}
