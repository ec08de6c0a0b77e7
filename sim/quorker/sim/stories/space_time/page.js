"use strict";
// Puts the page together: one scene, its canvases, and what pointer and keys do to it.

window.addEventListener("error", (problem) => {
  const trouble = document.getElementById("trouble");
  trouble.hidden = false;
  trouble.textContent = `This page has a fault: ${problem.message} (${problem.lineno})`;
});

const $ = (id) => document.getElementById(id);
const story = readStory(JSON.parse($("story").textContent));
const scene = {
  story, view: makeView(story), looks: makeLooks(story), colours: {}, selected: -1, focus: null,
  hovered: null, hoveredEvent: -1, matches: [], match: -1, inView: { events: 0, arrows: 0 },
};
const { view, looks } = scene;
let waiting = false;

// ---------------------------------------------------------------- painting

function repaint() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; paint(); });
}

function paint() {
  const stage = $("stage").getBoundingClientRect(), scroll = $("scroll");
  scene.colours = {};
  layLanes(view, scroll.clientHeight);
  view.width = scroll.clientWidth;
  drawLanes(prepare($("lanes"), view.width, view.height), scene);
  drawAxis(prepare($("axis"), stage.width, 30), scene);
  drawOverview(prepare($("overview"), stage.width, 46), scene, view.width, 46);
  $("in-view").textContent = `in view: ${scene.inView.events.toLocaleString("en")} of ${story.count.toLocaleString("en")} events, ${scene.inView.arrows.toLocaleString("en")} messages`;
  document.body.dataset.painted = String(Number(document.body.dataset.painted || 0) + 1);
}

const act = {
  select(event, move) {
    scene.selected = event;
    scene.focus = event < 0 ? null : { past: coneOf(story, event, false), future: coneOf(story, event, true) };
    if (move && event >= 0) reveal(event);
    showDetails(scene, act);
    repaint();
  },
  filtered() {
    showLegend(scene, act);
    repaint();
  },
};

// Bring an event into the middle third, without changing the scale.
function reveal(event) {
  const x = xOfEvent(view, event);
  if (x < GUTTER + 40 || x > view.width - 60) centreOn(view, event);
  const lane = view.lanes[story.events.lane[event]];
  if (lane) $("scroll").scrollTop = Math.max(0, lane.middle - $("scroll").clientHeight / 2);
}

function showViolation() {
  if (story.violation < 0) return;
  const room = view.ordered ? 120 : Math.max(2e6, neighbourhood(story.violation, 60));
  const place = placeOfEvent(view, story.violation);
  view.from = place - 0.82 * room;
  view.to = place + 0.18 * room;
  act.select(story.violation, false);
}

// So much time that about this many events lie before one.
function neighbourhood(event, count) {
  return 1.25 * (story.events.at[event] - story.events.at[Math.max(0, event - count)]);
}

// ---------------------------------------------------------------- pointer

function nearestEvent(x, y) {
  const [first, last] = eventsInView(view);
  let best = -1, least = 9;
  for (let event = first; event < last; event++) {
    const dx = xOfEvent(view, event) - x;
    if (dx < -9 || dx > 9 || looks.hiddenEvents.has(looks.eventClass[story.events.kind[event]])) continue;
    const distance = Math.hypot(dx, yOfEvent(view, looks, story, event) - y);
    if (distance < least) { least = distance; best = event; }
  }
  return best;
}

function nearestArrow(x, y) {
  let best = null, least = 5;
  for (const arrow of arrowsInView(scene)) {
    const distance = distanceTo(lineOf(view, arrow), x, y);
    if (distance < least) { least = distance; best = arrow; }
  }
  return best;
}

function distanceTo({ x1, y1, x2, y2 }, x, y) {
  const dx = x2 - x1, dy = y2 - y1;
  const share = Math.min(1, Math.max(0, ((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(x - x1 - share * dx, y - y1 - share * dy);
}

function nearestSpan(x, y) {
  const place = placeAt(view, x);
  return story.spans.find((span) => span.kind !== "life" && onSpan(span, place, y)) || null;
}

function onSpan(span, place, y) {
  const lane = view.lanes[span.lane];
  if (!lane || y < lane.top || y > lane.top + lane.height) return false;
  return place >= (view.ordered ? span.event : span.from) && place <= placeOfTime(view, span.to);
}

function look(pointer) {
  const { offsetX: x, offsetY: y } = pointer;
  scene.hoveredEvent = nearestEvent(x, y);
  scene.hovered = scene.hoveredEvent < 0 ? nearestArrow(x, y) : null;
  if (scene.hoveredEvent < 0 && !scene.hovered) {
    const span = nearestSpan(x, y);
    if (span) scene.hoveredEvent = span.event;
  }
  $("lanes").classList.toggle("over", scene.hoveredEvent >= 0 || scene.hovered !== null);
  showHint(scene, pointer.clientX, pointer.clientY);
  repaint();
}

function listenToLanes() {
  const lanes = $("lanes");
  let last = null, moved = 0;
  lanes.addEventListener("wheel", (wheel) => {
    if (wheel.shiftKey) return;
    wheel.preventDefault();
    if (Math.abs(wheel.deltaX) > Math.abs(wheel.deltaY)) pan(view, wheel.deltaX);
    else zoom(view, 1.0016 ** wheel.deltaY, wheel.offsetX);
    repaint();
  }, { passive: false });
  lanes.addEventListener("pointerdown", (pointer) => {
    last = pointer.clientX; moved = 0;
    lanes.setPointerCapture(pointer.pointerId);
    lanes.classList.add("dragging");
  });
  lanes.addEventListener("pointermove", (pointer) => {
    if (last === null) { look(pointer); return; }
    moved += Math.abs(pointer.clientX - last);
    pan(view, last - pointer.clientX);
    last = pointer.clientX;
    repaint();
  });
  lanes.addEventListener("pointerup", (pointer) => {
    last = null;
    lanes.classList.remove("dragging");
    if (moved > 4) return;
    look(pointer);
    act.select(scene.hoveredEvent >= 0 ? scene.hoveredEvent : scene.hovered ? scene.hovered.sent : -1, false);
  });
  lanes.addEventListener("pointerleave", () => {
    scene.hovered = null; scene.hoveredEvent = -1;
    $("hint").hidden = true;
    repaint();
  });
}

function listenToOverview() {
  const overview = $("overview");
  let down = false;
  const move = (pointer) => {
    const place = (pointer.offsetX - GUTTER) / (view.width - GUTTER - RIGHT) * extentOf(view), span = view.to - view.from;
    view.from = place - span / 2;
    view.to = place + span / 2;
    keepInside(view);
    repaint();
  };
  overview.addEventListener("pointerdown", (pointer) => { down = true; overview.setPointerCapture(pointer.pointerId); move(pointer); });
  overview.addEventListener("pointermove", (pointer) => { if (down) move(pointer); });
  overview.addEventListener("pointerup", () => { down = false; });
  overview.addEventListener("dblclick", () => { fit(view); repaint(); });
}

// ---------------------------------------------------------------- search, buttons, keys

function searchFor(words) {
  const wanted = words.trim().toLowerCase();
  scene.matches = [];
  scene.match = -1;
  if (wanted) {
    for (let event = 0; event < story.count; event++) {
      const text = `#${event + 1} ${describe(scene, event).text} ${story.kinds[story.events.kind[event]]}`.toLowerCase();
      if (text.includes(wanted)) scene.matches.push(event);
    }
  }
  $("found").textContent = wanted ? `${scene.matches.length.toLocaleString("en")} found` : "";
  repaint();
}

function nextMatch(step) {
  const count = scene.matches.length;
  if (!count) return;
  scene.match = (scene.match + step + count) % count;
  $("found").textContent = `${(scene.match + 1).toLocaleString("en")} of ${count.toLocaleString("en")}`;
  act.select(scene.matches[scene.match], true);
}

function changeScale() {
  toggleScale(view);
  $("scale").textContent = view.ordered ? "time" : "order";
  repaint();
}

function setTheme(dark) {
  looks.dark = dark;
  document.documentElement.classList.toggle("dark", dark);
  showLegend(scene, act);
  repaint();
}

const KEYS = {
  ArrowLeft: () => pan(view, -120), ArrowRight: () => pan(view, 120),
  "+": () => zoom(view, 0.6, view.width / 2), "=": () => zoom(view, 0.6, view.width / 2), "-": () => zoom(view, 1.6, view.width / 2),
  f: () => fit(view), v: showViolation, t: changeScale, n: () => nextMatch(1), p: () => nextMatch(-1),
  "/": () => $("search").focus(), Escape: () => act.select(-1, false),
};

function listenToControls() {
  $("search").addEventListener("input", () => searchFor($("search").value));
  $("search").addEventListener("keydown", (key) => {
    if (key.key === "Enter") nextMatch(key.shiftKey ? -1 : 1);
    if (key.key === "Escape") { $("search").value = ""; searchFor(""); $("search").blur(); }
  });
  $("fit").addEventListener("click", () => { fit(view); repaint(); });
  $("scale").addEventListener("click", changeScale);
  $("theme").addEventListener("click", () => setTheme(!looks.dark));
  $("violation").addEventListener("click", showViolation);
  $("violation").hidden = story.violation < 0;
  window.addEventListener("resize", repaint);
  document.addEventListener("keydown", (key) => {
    if (document.activeElement === $("search") || key.ctrlKey || key.metaKey || !KEYS[key.key]) return;
    key.preventDefault();
    KEYS[key.key]();
    repaint();
  });
}

// An address like page.html#v,order,dark,event=12,from=0.2,to=0.4 opens the page as somebody else saw it.
function obeyAddress() {
  const wishes = Object.fromEntries(location.hash.slice(1).split(",").filter(Boolean).map((wish) => wish.split("=")));
  if ("dark" in wishes || "light" in wishes) setTheme("dark" in wishes);
  if ("order" in wishes) changeScale();
  if (wishes.from || wishes.to) {
    view.from = Number(wishes.from || 0) * extentOf(view);
    view.to = Number(wishes.to || 1) * extentOf(view);
  }
  if ("v" in wishes) showViolation();
  if (wishes.event) act.select(Math.min(story.count, Math.max(1, Number(wishes.event))) - 1, !wishes.from);
  if (wishes.search) { $("search").value = decodeURIComponent(wishes.search); searchFor($("search").value); }
}

fit(view);
layLanes(view, $("scroll").clientHeight);
view.width = $("scroll").clientWidth;
listenToLanes();
listenToOverview();
listenToControls();
setTheme(window.matchMedia("(prefers-color-scheme: dark)").matches);
showDetails(scene, act);
if (story.violation >= 0) showViolation();
obeyAddress();
paint();
document.body.dataset.ready = "yes";
